"""Logging in to, and later meeting, somebody who is not the daemon (E49, E50, T33, T37): nothing secret reaches him."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from henge_protocol import pki
from henge_protocol.joining import JoinToken, format_token, new_token
from hengectl import profile
from hengectl.address import Address
from hengectl.profile import Profile
from tests.henge_protocol.authorities import FLEET, Fleet
from tests.henge_protocol.impostors import IMPOSTORS, TRUST_ANSWERS, Impostor, claim, context_of, pretending
from tests.hengectl.conftest import Face, Ran
from tests.service import PATIENCE_S


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def token(fleet: Fleet) -> JoinToken:
    """A right token of the fleet, for an operator."""
    return new_token("admin", pki.fingerprint(fleet.server_ca.certificate_der), random=secrets.token_bytes)


async def login(face: Face, port: int, token: JoinToken) -> Ran:
    """``hengectl login`` at a port of this machine."""
    return await face.run("login", f"https://127.0.0.1:{port}", "--token-file", "-", stdin=format_token(token))


def assert_refused(ran: Ran, said: str, code: int, face: Face) -> None:
    """One line that says why, and nothing is kept."""
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("Error: ")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (face.home / ".config/henge/config.toml").exists()


@pytest.mark.parametrize("identity", IMPOSTORS.values(), ids=IMPOSTORS.keys())
async def test_an_impostor_with_the_right_public_claim_gets_no_byte_of_the_token_e49(
    face: Face, fleet: Fleet, token: JoinToken, identity: Callable[[Fleet], bytes]
) -> None:
    impostor = Impostor(claim(fleet))
    async with pretending(impostor, context_of(fleet, identity(fleet))) as port:
        ran = await login(face, port, token)

    assert_refused(ran, f"https://127.0.0.1:{port}", 7, face)
    assert not impostor.heard_of(token)
    assert impostor.requests == 1


CODES = {"pin_mismatch": 7, "bad_trust_answer": 6, "too_large": 6}


@pytest.mark.parametrize(("answer", "code"), TRUST_ANSWERS.values(), ids=TRUST_ANSWERS.keys())
async def test_a_wrong_public_claim_ends_the_login_e50(
    face: Face, fleet: Fleet, token: JoinToken, answer: Callable[[Fleet], bytes], code: str
) -> None:
    impostor = Impostor(answer(fleet))
    async with pretending(impostor, context_of(fleet, fleet.server_identity())) as port:
        ran = await login(face, port, token)

    assert_refused(ran, "", CODES[code], face)
    assert not impostor.heard_of(token)
    assert impostor.requests == 1


async def test_a_redirect_is_not_followed_e50(face: Face, fleet: Fleet, token: JoinToken) -> None:
    other = Impostor(claim(fleet))
    async with pretending(other, context_of(fleet, fleet.server_identity())) as elsewhere:
        impostor = Impostor(b"", status=302, location=f"https://127.0.0.1:{elsewhere}/v1/trust")
        async with pretending(impostor, context_of(fleet, fleet.server_identity())) as port:
            ran = await login(face, port, token)

    assert_refused(ran, "", 6, face)
    assert (impostor.requests, other.requests) == (1, 0)


def test_a_claim_that_never_ends_is_not_listened_to_e50(face: Face, fleet: Fleet, token: JoinToken) -> None:
    context, heard = context_of(fleet, fleet.server_identity()), bytearray()

    def talk() -> None:
        plain, _ = listener.accept()
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as peer:
            heard.extend(peer.recv(65536))
            peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                peer.sendall(b"x" * 65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        talking = threading.Thread(target=talk, daemon=True)
        talking.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        ran = face.now("login", address, "--token-file", "-", stdin=format_token(token))
        talking.join(PATIENCE_S)

    assert_refused(ran, "has more than 4096 bytes", 6, face)
    assert not talking.is_alive(), "the connection was not closed"
    assert token.secret.encode() not in heard


async def test_plain_http_hears_nothing(face: Face, fleet: Fleet, token: JoinToken) -> None:
    impostor = Impostor(claim(fleet))
    async with pretending(impostor, None) as port:
        ran = await login(face, port, token)

    assert_refused(ran, f"https://127.0.0.1:{port}", 7, face)
    assert impostor.requests == 0


@pytest.mark.parametrize("identity", IMPOSTORS.values(), ids=IMPOSTORS.keys())
@pytest.mark.parametrize("command", [("get", "devices"), ("set", "device/lamp-1", "color=red")], ids=["get", "set"])
async def test_whoever_took_the_daemons_address_hears_no_request_t33(
    face: Face, fleet: Fleet, identity: Callable[[Fleet], bytes], command: tuple[str, ...]
) -> None:
    impostor = Impostor(claim(fleet))
    async with pretending(impostor, context_of(fleet, identity(fleet))) as port:
        logged_in(face, fleet, port)
        ran = await face.run(*command)

    assert (ran.code, ran.out, impostor.requests) == (7, "", 0)
    assert f"the server at https://127.0.0.1:{port} " in ran.err
    assert ("Nothing was changed." in ran.err) == (command[0] == "set")


def logged_in(face: Face, fleet: Fleet, port: int) -> None:
    """Keep what a login at this port would have left."""
    contexts = profile.load(face.home / ".config/henge")
    folder = profile.credential_dir(contexts, "casa")
    ca = fleet.server_ca.certificate_der
    made = Profile("casa", Address("127.0.0.1", port), FLEET, pki.fingerprint(ca).hex(), folder)
    profile.write_credential(folder, identity_pem=fleet.device_identity(), server_ca=ca, renew_after=2**40)
    profile.save(profile.add(contexts, made))
