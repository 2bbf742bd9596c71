"""Joining and renewing, as docs/pki.md says, step by step. Imported when needed and dropped again: it holds 10 KB.

An identity is a record: ``fleet``, ``id``, ``name``, ``ca`` (the server authorities), ``key`` and ``cert`` (all DER in
base64), ``renew_at``, and while a renewal is not proved ``trial``: the new key and certificate.
"""

import asyncio
import hashlib
from binascii import a2b_base64, b2a_base64, hexlify, unhexlify

from henge_micro import board, joining, p256
from henge_micro.http import Connection
from henge_micro.mdns import is_id
from henge_micro.wire import Trouble

POLL_WAIT_S = 25
MAX_TRUST_BYTES = 4096
MAX_AUTHORITIES = 2


async def fetch_trust(address, fingerprint):
    """(fleet, [authorities], the daemon's unproved clock) from whoever answers; with a fingerprint only that one.

    Raises ``Trouble`` bad_trust_answer, pin_mismatch.
    """
    connection = await Connection(address).open()
    try:
        claim = await connection.json("GET", "/v1/trust")
    finally:
        await connection.close()
    try:
        fleet, ders = claim["fleet"], [a2b_base64(text) for text in claim["server_ca"]]
        if not is_id(fleet) or not 1 <= len(ders) <= MAX_AUTHORITIES:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise Trouble("bad_trust_answer", address)
    if fingerprint is not None:
        ders = [der for der in ders if hashlib.sha256(der).digest() == fingerprint]
        if not ders:
            raise Trouble("pin_mismatch", "not the daemon of this token")
    return fleet, ders[:1], connection.date


async def by_token(address, text, about, store):
    """Join with a token at the daemon it names; the identity. The key is kept until then, for a lost answer."""
    token_id, secret, fingerprint = joining.parse_token(text)
    fleet, ders, _ = await fetch_trust(address, fingerprint)
    key = _joining_key(store, token_id, text)
    body = dict(about, token_id=token_id, secret=secret, csr=_csr(key, about["name"]))
    connection = await Connection(address, ders, fleet).open()
    try:
        answer = await connection.json("POST", "/v1/enrol", body, wanted=(201,))
    except Trouble as error:
        if error.code == "key_in_use":
            store.forget("joining")
        raise
    finally:
        await connection.close()
    return _identity(answer, key, fleet)


async def by_code(address, about, show, confirm):
    """Ask to join, ``show`` the eight digits, wait for an operator to type them; ``confirm`` compares. The identity."""
    fleet, ders, _ = await fetch_trust(address, None)
    key = p256.make_key(board.random_bytes())
    spki, nonce = p256.spki_der(key[1]), board.random_bytes()
    connection = await Connection(address, ders, fleet).open()
    try:
        commit = hexlify(joining.commitment(nonce, spki)).decode()
        begun = await connection.json("POST", "/v1/enrol/begin", dict(about, commit=commit), wanted=(201,))
        sid = begun["sid"]
        reveal = {"sid": sid, "nonce": hexlify(nonce).decode(), "csr": _csr(key, about["name"])}
        await connection.json("POST", "/v1/enrol/reveal", reveal)
        code = joining.code(sid, nonce, unhexlify(begun["nonce"]), spki, hashlib.sha256(ders[0]).digest())
        show(code[:4] + " " + code[4:])
        path = "/v1/enrol/" + sid
        while True:
            answer = await connection.json("GET", path + "?wait=%d" % POLL_WAIT_S, None, POLL_WAIT_S, (200, 202))
            if answer["status"] == 200:
                break
            await asyncio.sleep_ms(200)  # against a daemon that does not wait
        identity = _identity(answer, key, fleet)
        if not await confirm(code):
            await connection.json("POST", path + "/answer", {"accept": False})
            raise Trouble("join_rejected", "the codes are not the same")
    finally:
        await connection.close()
    if _text(ders[0]) not in identity["ca"]:
        raise Trouble("pin_mismatch", "another authority than the one that the code covers")
    return identity


async def renew(connection, identity, client):
    """Ask for a new certificate with a new key; the identity with it on trial."""
    key = p256.make_key(board.random_bytes(a2b_base64(identity["key"])))
    answer = await connection.json("POST", "/v1/renew", {"csr": _csr(key, identity["name"]), "client": client})
    renewed = _identity(answer, key, identity["fleet"])
    trial = {"key": renewed["key"], "cert": renewed["cert"]}
    return dict(identity, ca=renewed["ca"], renew_at=renewed["renew_at"], trial=trial)


def _joining_key(store, purpose, salt):
    kept = store.load("joining")
    if kept and kept["for"] == purpose:
        return a2b_base64(kept["secret"]), a2b_base64(kept["point"])
    key = p256.make_key(board.random_bytes(salt.encode()))
    store.keep("joining", {"for": purpose, "secret": _text(key[0]), "point": _text(key[1])})
    return key


def _csr(key, name):
    return _text(p256.csr_der(key[0], key[1], name, board.random_bytes()))


def _identity(answer, key, fleet):
    """The record of what was issued, if it is ours: a board's TLS takes a wrong pair at loading and fails later."""
    try:
        cert, device = a2b_base64(answer["certificate"]), answer["device_id"]
        names = "henge://%s/device/%s" % (fleet, device)
        if answer["fleet"] != fleet or names.encode() not in cert or key[1] not in cert:
            raise ValueError
        return {
            "fleet": fleet,
            "id": device,
            "name": answer["name"],
            "ca": [_text(a2b_base64(text)) for text in answer["server_ca"]][:MAX_AUTHORITIES],
            "key": _text(p256.key_der(*key)),
            "cert": _text(cert),
            "renew_at": answer["now"] + int((answer["renew_after"] - answer["now"]) * (0.9 + board.chance() / 5)),
        }
    except (KeyError, TypeError, ValueError):
        raise Trouble("bad_certificate", "the identity that the daemon issued is not ours")


def _text(data):
    return b2a_base64(data).decode().strip()
