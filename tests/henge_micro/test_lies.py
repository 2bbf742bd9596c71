"""Daemons and networks that do not do what they should: the old document stays, and what happened has a name."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from henge_protocol.csr import read_csr
from henge_protocol.joining import format_token
from henge_protocol.model import digest_of
from henge_protocol.wire import Error, Report, encode
from tests.henge_agent import scripted as scripts
from tests.henge_agent.scripted import Scripted, serving
from tests.henge_micro.boards import RUN, Board, Interpreter, eventually
from tests.henge_protocol.authorities import Fleet
from tests.henge_protocol.impostors import IMPOSTORS, Impostor, claim, pretending

GREEN, RED = b'{"color":"green"}', b'{"color":"red"}'


def setup_for(daemon: Scripted, port: int = 0) -> dict[str, str]:
    """What a board is given that shall join this daemon."""
    address = f"127.0.0.1:{port or daemon.address.port}"
    return {"server": address, "token": format_token(daemon.token()), "name": "lamp-1"}


PATIENT = "Client._pause_s = lambda self, ended: 3600\n"
HASTY = "Client._pause_s = lambda self, ended: 0.05\n" + RUN


@pytest.fixture
async def liar() -> AsyncIterator[Scripted]:
    async with serving(Scripted(Fleet())) as daemon:
        yield daemon


@pytest.fixture
async def blank(small: Interpreter, liar: Scripted, tmp_path: Path) -> AsyncIterator[Board]:
    """A board that has not joined, and a daemon that wants it green."""
    await liar.want(GREEN)
    board = Board(small, tmp_path / "lamp-1", setup_for(liar))
    try:
        yield board
    finally:
        await board.off()


@pytest.fixture
async def board(blank: Board, liar: Scripted) -> Board:
    """A board that runs the green document, confirmed: a power cut does not take it back."""
    await blank.start(HASTY)
    await liar.reported("applied", digest_of(GREEN))
    await eventually(lambda: not any(blank.record("progress")[name] for name in ("trial", "report")))
    return blank


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "poll"])
async def test_a_wrong_digest_is_reported_and_the_old_document_stays(
    blank: Board, liar: Scripted, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    honest, wrong = scripts.encode, "0" * 64
    monkeypatch.setattr(scripts, "encode", lambda it: honest(it).replace(digest_of(RED).encode(), wrong.encode()))
    await blank.start(HASTY if stream else HASTY.replace("on_config=show", "on_config=show, stream=False"))
    await liar.reported("applied", digest_of(GREEN))
    await liar.want(RED)
    report = await liar.reported("rejected", wrong)
    await blank.off()
    await blank.start()
    kept = await blank.says("config")

    assert report.reason == "digest-mismatch"
    assert kept == {"color": "green"}


class Cutter:
    """A network between board and daemon that breaks after so many bytes of the daemon's."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.left: int | None = None
        self.cuts = 0
        self._behind = port
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Cutter]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        both = {writer, behind_writer}
        self._open |= both
        await asyncio.gather(
            self._copy(reader, behind_writer, both, down=False), self._copy(behind_reader, writer, both, down=True)
        )
        self._open -= both

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: set[asyncio.StreamWriter], *, down: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(256):
                if down and self._is_over(len(data)):
                    break
                writer.write(data)
                await writer.drain()
        for each in both:
            each.transport.abort()

    def _is_over(self, size: int) -> bool:
        if self.left is None:
            return False
        self.left -= size
        if self.left >= 0:
            return False
        self.cuts, self.left = self.cuts + 1, None
        return True


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "poll"])
async def test_a_cut_body_changes_nothing_and_is_fetched_again(
    small: Interpreter, liar: Scripted, tmp_path: Path, stream: bool
) -> None:
    big = b'{"color":"red","text":"' + b"x" * 2000 + b'"}'
    await liar.want(GREEN)
    async with Cutter(liar.address.port).running() as network:
        board = Board(small, tmp_path / "lamp-1", setup_for(liar, network.port))
        try:
            await board.start(HASTY if stream else HASTY.replace("on_config=show", "on_config=show, stream=False"))
            await liar.reported("applied", digest_of(GREEN))
            for cut in (10, 1000):
                network.left, before = cut, network.cuts
                await liar.want(big + b" " * cut)
                await liar.reported("applied", digest_of(big + b" " * cut))

                assert network.cuts == before + 1
        finally:
            await board.off()

    assert {report.state for report in liar.reports} == {"applied"}


async def test_a_network_without_websockets_is_polled(blank: Board, liar: Scripted) -> None:
    liar.websockets = False
    await blank.start()
    await liar.reported("applied", digest_of(GREEN))
    await liar.want(RED)
    await liar.reported("applied", digest_of(RED))

    assert liar.polls >= 1


async def test_a_lost_answer_to_joining_costs_nothing(blank: Board, liar: Scripted) -> None:
    liar.lose_enrolments = 1
    await blank.start()
    await liar.reported("applied", digest_of(GREEN))

    first, second = (enrolment["csr"] for enrolment in liar.enrolments)
    assert public_key(first) == public_key(second), "with the same key the daemon gives the same identity"


def public_key(csr: str) -> bytes:
    return read_csr(base64.b64decode(csr)).spki_der


async def test_a_renewed_identity_that_is_refused_is_dropped(board: Board, liar: Scripted) -> None:
    await board.off()
    before = board.record("identity")
    board.change("identity", renew_at=1)
    liar.refused_certificates = Refusing(base64.b64decode(before["cert"]))
    await board.start(PATIENT + RUN)
    await board.prints("certificate_superseded")
    await eventually(lambda: "trial" not in board.record("identity"))

    assert board.record("identity")["cert"] == before["cert"]
    assert liar.renewals == 1


class Refusing(set[bytes]):
    """All certificates but one."""

    def __init__(self, accepted: bytes) -> None:
        super().__init__()
        self._accepted = accepted

    def __contains__(self, certificate: object) -> bool:
        return certificate != self._accepted


@pytest.mark.parametrize(
    "change", [{"fleet": "0" * 26}, {"server_ca": []}, {"certificate": "AAAA"}, {"device_id": "x"}]
)
async def test_an_identity_that_is_not_ours_is_not_stored(
    blank: Board, liar: Scripted, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    honest = liar.issue
    monkeypatch.setattr(liar, "issue", lambda csr, name: honest(csr, name) | change)
    await blank.start(PATIENT + RUN)
    await blank.prints("bad_certificate")

    assert not (blank.folder / "identity").exists()


async def test_a_daemon_that_cannot_renew_now_is_connected_to_all_the_same(board: Board, liar: Scripted) -> None:
    await board.off()
    board.change("identity", renew_at=1)
    liar.refuse_renewal = (503, "clock_suspect")
    await board.start()
    await board.prints("clock_suspect")
    await liar.want(RED)
    await liar.reported("applied", digest_of(RED))

    assert liar.renewals == 0


async def test_a_daemon_that_asks_for_a_renewal_and_refuses_it_is_not_asked_again_at_once(
    board: Board, liar: Scripted
) -> None:
    await board.off()
    liar.refuse_renewal, liar.renew_within_s = (503, "clock_suspect"), 1
    await board.start()
    await board.prints("clock_suspect")
    for document in (RED, GREEN):
        await liar.want(document)
        await liar.reported("applied", digest_of(document))

    assert (liar.renewals_wanted, liar.renewals) == (1, 0)


async def test_what_a_daemon_of_the_future_says_beyond_version_1_changes_nothing(board: Board, liar: Scripted) -> None:
    said = len(liar.frames)
    liar.desired, liar.revision = RED, liar.revision + 1
    config, _, document = encode(liar.config()).partition(b"\n")
    [socket] = liar.sockets
    await socket.send_str('{"type":"weather","degrees":21}')
    await socket.send_str(json.dumps({**json.loads(config), "weather": {"degrees": 21}}) + "\n" + document.decode())
    await liar.reported("applied", digest_of(RED))

    assert [frame.code for frame in liar.frames[said:] if isinstance(frame, Error)] == ["unknown_type"]


async def test_a_power_cut_right_after_renewal_leaves_an_identity_that_works(board: Board, liar: Scripted) -> None:
    await board.off()
    board.change("identity", renew_at=1)
    await board.start(CUT_BEFORE_USE + RUN)
    kept = await board.says("cut")
    await board.off()
    await board.start()
    await liar.seen(lambda: len(liar.certificates) == 2)
    await eventually(lambda: "trial" not in board.record("identity"))

    assert "trial" in kept, "it is in flash before it is used, because its first use ends the old one"


CUT_BEFORE_USE = """
async def off(*_):
    say(cut=sorted(client.store.load("identity")))
    await asyncio.sleep(99)
Client._live = off
"""


def ok(body: bytes, head: bytes = b"") -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 200 OK\r\n" + (head or b"Content-Length: %d\r\n" % len(body)) + b"\r\n" + body


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "unreachable"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "unreachable"),
        (ok(b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"), "unreachable"),
        (ok(b"{}", b"X: y\r\n" * 1000), "unreachable"),
        (ok(b"{", b"Content-Length: 9\r\n"), "unreachable"),
        (ok(b"{", b"Content-Length: 999999999\r\n"), "too_large"),
        (ok(b"{}", b"Content-Length: minus\r\n"), "bad_json"),
        (ok(b"[]"), "bad_json"),
        (ok(b"\xff\xfe"), "bad_json"),
        (ok(b"[" * 3000), "bad_json"),
        (ok(b"{}"), "bad_trust_answer"),
        (ok(b'{"fleet":"' + b"0" * 26 + b'","server_ca":7}'), "bad_trust_answer"),
        (ok(b'{"fleet":"' + b"0" * 26 + b'","server_ca":["MII"]}'), "bad_trust_answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://else\r\nContent-Length: 0\r\n\r\n", "internal"),
        (b"A" * 200_000, "unreachable"),
    ],
)
async def test_whoever_answers_nonsense_is_no_daemon(
    small: Interpreter, liar: Scripted, tmp_path: Path, answer: bytes, code: str
) -> None:
    context = scripts.device_server_context(liar.fleet.server_identity(), [liar.fleet.client_ca.certificate_der])

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.transport.abort() if len(answer) > 100_000 else writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=context)
    board = Board(small, tmp_path / "lamp-1", setup_for(liar, server.sockets[0].getsockname()[1]))
    try:
        await board.start("from henge_micro import http\nhttp.ANSWER_S = 1\n" + PATIENT + RUN)
        line = await board.prints("henge:")
    finally:
        await board.off()
        server.close()

    assert line.startswith(f"henge: {code}"), line


@pytest.mark.parametrize("identity", IMPOSTORS.values(), ids=IMPOSTORS.keys())
async def test_an_impostor_with_the_right_public_claim_gets_no_byte_of_the_token_e49_t33(
    small: Interpreter, liar: Scripted, tmp_path: Path, identity: Callable[[Fleet], bytes]
) -> None:
    impostor, token = Impostor(claim(liar.fleet)), liar.token()
    context = scripts.device_server_context(identity(liar.fleet), [liar.fleet.client_ca.certificate_der])
    async with pretending(impostor, context) as port:
        setup = setup_for(liar, port) | {"token": format_token(token)}
        board = Board(small, tmp_path / "lamp-1", setup)
        try:
            await board.start(PATIENT + RUN)
            await board.prints("henge: pin_mismatch")
        finally:
            await board.off()

    assert impostor.requests == 1
    assert not impostor.heard_of(token)
    assert not (board.folder / "identity").exists()


async def test_somebody_in_between_who_asks_for_no_certificate_is_told_of_t38(
    board: Board, liar: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await board.off()
    honest = scripts.device_server_context

    def asking_for_nothing(*arguments: Any) -> ssl.SSLContext:
        context = honest(*arguments)
        context.verify_mode = ssl.CERT_NONE
        return context

    monkeypatch.setattr(scripts, "device_server_context", asking_for_nothing)
    stripped = Scripted(liar.fleet, desired=RED, revision=9)
    async with serving(stripped):
        board.setup = setup_for(stripped)
        board.change("seen", address=f"127.0.0.1:{stripped.address.port}")
        await board.start(PATIENT + RUN)
        alone = await board.says("config")
        await board.prints("certificate_required")
        await board.off()

    assert (alone, stripped.frames) == ({"color": "green"}, [])


async def test_a_frame_of_the_wrong_form_is_answered_and_the_link_stays(board: Board, liar: Scripted) -> None:
    [socket] = liar.sockets
    await socket.send_str('{"type":"surprise"}')
    await socket.send_str('{"type":"receipt","digest":7}')
    await socket.ping()
    await liar.want(RED)
    await liar.reported("applied", digest_of(RED))

    assert list(liar.sockets) == [socket]
    assert liar.connections == 1


async def test_binary_frames_end_the_link(board: Board, liar: Scripted) -> None:
    [socket] = liar.sockets
    await socket.send_bytes(encode(Report(digest=digest_of(RED))))
    await liar.seen(lambda: len(liar.hellos) >= 2)

    assert liar.sockets != {socket}
