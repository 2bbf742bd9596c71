"""What happens once in months: finding the daemon, joining, renewing, learning the time. See docs/pki.md, step by step.

An identity is a record: ``fleet``, ``id``, ``name``, ``ca`` (the server authorities), ``key`` and ``cert`` (all DER in
base64), ``renew_at``, and while a renewal is not proved ``trial``: the new key and certificate.
"""

import asyncio
import gc
import hashlib
import json
import os
from binascii import a2b_base64, b2a_base64, hexlify, unhexlify

from henge_micro import board
from henge_micro.http import Connection
from henge_micro.wire import CLIENT, Trouble, is_id

POLL_WAIT_S = 25
AGAIN_S = 3600
PIECE_BYTES = 480
"""A multiple of three, so that each piece is whole base64."""
HEAD = "POST /v1/device/rescue HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
MAX_AUTHORITIES = 2


async def announced(client):
    """Addresses where our daemon may be: of our fleet, or of the daemon that the token is from, or of any."""
    from henge_micro import mdns

    fleet, token, fp = client.identity and client.identity["fleet"], client.setup.get("token"), ""
    if token and not fleet:
        fp = hexlify(_parse(token)[2][:8]).decode()

    def wanted(hint):
        return hint["fleet"] == fleet if fleet else not fp or hint["fp"] in ("", fp)

    found = await mdns.browse(wanted, *client.setup.get("mdns", ()))
    return ["%s:%d" % each[:2] for each in found]


async def take_hint(client, address):
    """A board that starts in 2000 cannot verify anybody: believe whoever answers about the time, forward only."""
    from henge_micro.clock import unix_time

    try:
        hint = unix_time((await fetch_trust(address, None))[2])
    except Trouble:
        return False
    return bool(hint > board.unix_time() and board.set_time(hint))


async def join(client, address):
    """Become known: by token, or by a code that a person compares; the identity is durable afterwards."""
    setup = client.setup
    facts = board.facts()
    if setup.get("schema"):
        facts["schema"] = setup["schema"]
    name = setup.get("name") or "board-" + hexlify(os.urandom(3)).decode()
    about = {"name": name, "facts": facts, "client": CLIENT}
    if setup.get("token"):
        identity = await _by_token(address, setup["token"], about, client.store)
    elif client.confirm or setup.get("accept_first"):
        identity = await _by_code(address, about, client.show, client.confirm)
    else:
        raise Trouble("bad_setting", "no token, and nobody to compare a code with: see accept_first")
    client.keep_identity(identity)
    client.store.forget("joining")


async def renew(client, address):
    """Get a new key certified; it is on trial then. Raises the daemon's refusal."""
    identity = client.identity
    key = _new_key(identity["key"])
    body = {"csr": _csr(key, identity["name"]), "client": CLIENT}
    gc.collect()  # the arithmetic leaves much behind, and TLS needs a large piece
    try:
        answer = await (await client.connect(address)).json("POST", "/v1/renew", body)
    finally:
        await client.hang_up()
    renewed = _identity(answer, key, identity["fleet"])
    answer = None
    gc.collect()  # with two authorities the record is 3 KB, in one piece
    trial = {"key": renewed["key"], "cert": renewed["cert"]}
    client.keep_identity(dict(identity, ca=renewed["ca"], renew_at=renewed["renew_at"], trial=trial))


async def cure(client, address, error):
    """Do what the daemon that refuses us wants: renew (then ``Trouble`` renewed), or tell it what runs."""
    await client.hang_up()
    if error.code == "rescue":
        await _hand_in(client, address, str(error))
    else:
        await renew(client, address)
        raise Trouble("renewed")


async def _hand_in(client, address, wish):
    """What runs, streamed from flash: once an hour for each wish of a daemon that has lost its store."""
    good, now = client.applier.good, board.monotonic()
    done = wish, good and good[2]
    if not good or (getattr(client, "handed", None) == done and now < client.hand_again):
        return
    facts = board.facts()
    if client.setup.get("schema"):
        facts["schema"] = client.setup["schema"]
    path = client.store.document(good[3])
    about = {
        "name": client.identity["name"], "epoch": good[0], "revision": good[1], "digest": good[2], "client": CLIENT,
        "facts": facts,
    }  # fmt: skip
    begun = (json.dumps(about)[:-1] + ', "document": "').encode()
    size = len(begun) + (os.stat(path)[6] + 2) // 3 * 4 + 2
    connection = await client.connect(address)
    await connection.write((HEAD % (address, size)).encode() + begun)
    with open(path, "rb") as file:
        while True:
            piece = file.read(PIECE_BYTES)
            if not piece:
                break
            await connection.write(b2a_base64(piece).strip())
    await connection.write(b'"}')
    status = await connection.timed(connection.head(), POLL_WAIT_S)
    if status != 202:
        raise await connection.refusal(status)
    client.handed, client.hand_again = done, now + AGAIN_S


async def fetch_trust(address, fingerprint):
    """(fleet, [authority], the daemon's unproved clock) from whoever answers; with a fingerprint only that authority.

    Raises ``Trouble`` bad_trust_answer, pin_mismatch.
    """
    connection = Connection(address)
    try:
        claim = await (await connection.open()).json("GET", "/v1/trust")
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


async def _by_token(address, text, about, store):
    """The key is kept until the answer has come: with the same one the daemon gives the same identity again."""
    token_id, secret, fingerprint = _parse(text)
    fleet, ders, _ = await fetch_trust(address, fingerprint)
    key = _joining_key(store, token_id, text)
    body = dict(about, token_id=token_id, secret=secret, csr=_csr(key, about["name"]))
    gc.collect()  # the arithmetic leaves much behind, and TLS needs a large piece
    connection = Connection(address, ders, fleet)
    try:
        answer = await (await connection.open()).json("POST", "/v1/enrol", body, wanted=(201,))
    except Trouble as error:
        if error.code == "key_in_use":
            store.forget("joining")
        raise
    finally:
        await connection.close()
    return _identity(answer, key, fleet)


async def _by_code(address, about, show, confirm):
    """Commit, reveal, ``show`` the digits, wait for an operator to type them; ``confirm`` has the last word."""
    from henge_micro import joining, p256

    fleet, ders, _ = await fetch_trust(address, None)
    key, nonce = _new_key(""), board.random_bytes()
    spki, csr = p256.spki_der(key[1]), _csr(key, about["name"])
    connection = await Connection(address, ders, fleet).open()
    try:
        commit = hexlify(joining.commitment(nonce, spki)).decode()
        begun = await connection.json("POST", "/v1/enrol/begin", dict(about, commit=commit), wanted=(201,))
        sid = begun["sid"]
        await connection.json("POST", "/v1/enrol/reveal", {"sid": sid, "nonce": hexlify(nonce).decode(), "csr": csr})
        code = joining.code(sid, nonce, unhexlify(begun["nonce"]), spki, hashlib.sha256(ders[0]).digest())
        show(code[:4] + " " + code[4:])
        path, answer = "/v1/enrol/" + sid, {}
        while answer.get("status") != 200:
            await asyncio.sleep_ms(200)  # against a daemon that does not wait
            answer = await connection.json("GET", path + "?wait=%d" % POLL_WAIT_S, None, POLL_WAIT_S, (200, 202))
        identity = _identity(answer, key, fleet)
        if confirm and not await confirm(code):
            await connection.json("POST", path + "/answer", {"accept": False})
            raise Trouble("join_rejected", "the codes are not the same")
    except (KeyError, TypeError, ValueError):
        raise Trouble("join_mismatch", address)
    finally:
        await connection.close()
    if _text(ders[0]) not in identity["ca"]:
        raise Trouble("pin_mismatch", "another authority than the code covers")
    return identity


def _parse(token):
    from henge_micro.joining import parse_token

    return parse_token(token)


def _joining_key(store, purpose, salt):
    kept = store.load("joining")
    if kept and kept["for"] == purpose:
        return a2b_base64(kept["secret"]), a2b_base64(kept["point"])
    key = _new_key(salt)
    store.keep("joining", {"for": purpose, "secret": _text(key[0]), "point": _text(key[1])})
    return key


def _new_key(salt):
    from henge_micro.p256 import make_key

    return make_key(board.random_bytes(salt.encode()))


def _csr(key, name):
    from henge_micro.p256 import csr_der

    return _text(csr_der(key[0], key[1], name, board.random_bytes()))


def _identity(answer, key, fleet):
    """The record of what was issued, if it is ours: a board's TLS takes a wrong pair at loading and fails later."""
    from henge_micro.p256 import key_der

    try:
        cert, device = a2b_base64(answer["certificate"]), answer["device_id"]
        names = "henge://%s/device/%s" % (fleet, device)
        if answer["fleet"] != fleet or names.encode() not in cert or key[1] not in cert or not answer["server_ca"]:
            raise ValueError
        return {
            "fleet": fleet,
            "id": device,
            "name": answer["name"],
            "ca": [_text(a2b_base64(text)) for text in answer["server_ca"]][:MAX_AUTHORITIES],
            "key": _text(key_der(*key)),
            "cert": _text(cert),
            "renew_at": answer["now"] + int((answer["renew_after"] - answer["now"]) * (0.9 + board.chance() / 5)),
        }
    except (KeyError, TypeError, ValueError):
        raise Trouble("bad_certificate", "the issued identity is not ours")


def _text(data):
    return b2a_base64(data).decode().strip()
