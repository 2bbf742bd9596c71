from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from henge_protocol import errors
from henge_protocol.errors import HengeError
from henge_protocol.tls import CertificateEnded
from hengectl.client import Client, UnixConnection, refusal, unreachable

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "e.1"\r\nHenge-Revision: 1\r\n\r\n{}'


class Peer:
    """A socket that answers each request of each connection with the next of the given bytes; empty bytes hang up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def answer(self, *answers: bytes) -> Client:
        self._answers = list(answers)
        self._thread.start()
        return Client("the peer", lambda timeout_s: UnixConnection(self.path, timeout_s))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        while self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while self._answers and (request := self._request(connection)):
                    self.requests.append(request)
                    answer = self._answers.pop(0)
                    if not answer:
                        break
                    connection.sendall(answer)

    def _request(self, connection: socket.socket) -> bytes:
        """Head and body: they come in separate writes."""
        request = b""
        while more := connection.recv(65536):
            request += more
            head, end, body = request.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: ([0-9]+)", head)
            if end and len(body) >= (int(length[1]) if length else 0):
                break
        return request


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    peer = Peer(tmp_path_factory.mktemp("p") / "s")
    yield peer
    peer.close()


def problem(status: int, body: bytes, headers: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n".encode()
    return head + headers + b"\r\n" + body


def test_requests_share_a_connection(peer: Peer) -> None:
    with peer.answer(OK, OK, OK) as client:
        client.get("/a", since=0, wait=None, empty="", dry_run=False)
        client.put("/b", {"ä": 1}, if_match='"e.1"', dry_run=True, message="a b")
        reply = client.patch("/c", {})

    assert peer.connections == 1
    assert peer.requests[0].startswith(b"GET /a?since=0 HTTP/1.1\r\n")
    assert b"Content-Type" not in peer.requests[0]
    assert peer.requests[1].startswith(b"PUT /b?dry_run=1&message=a+b HTTP/1.1\r\n")
    assert b'If-Match: "e.1"\r\n' in peer.requests[1]
    assert peer.requests[1].endswith('{"ä": 1}'.encode())
    assert b"Content-Type: application/merge-patch+json" in peer.requests[2]
    assert (reply.etag, reply.revision) == ('"e.1"', 1)


def test_a_question_is_repeated_when_a_kept_connection_was_closed(peer: Peer) -> None:
    with peer.answer(OK, b"", OK) as client:
        client.get("/a")
        client.get("/b")

    assert peer.connections == 2


def test_a_change_is_never_sent_twice(peer: Peer) -> None:
    with peer.answer(OK, b"", OK) as client:
        client.get("/a")
        with pytest.raises(errors.Unreachable):
            client.post("/b")

        assert client.outcome == "unknown"
    assert len(peer.requests) == 2


def test_a_change_that_found_no_daemon_is_known_not_to_be_made(tmp_path: Path) -> None:
    client = Client("nobody", lambda timeout_s: UnixConnection(tmp_path / "absent", timeout_s))
    with pytest.raises(errors.Unreachable):
        client.post("/a")

    assert client.outcome == "nothing"


def test_of_a_change_that_a_failing_store_took_nobody_knows(peer: Peer) -> None:
    with peer.answer(problem(500, b'{"code": "storage_failed", "detail": "it may not have been kept"}')) as client:
        with pytest.raises(errors.Internal):
            client.post("/a")

        assert client.outcome == "unknown"


def test_what_was_changed_is_known(peer: Peer) -> None:
    refused = problem(422, b'{"code": "does_not_fit", "detail": "no"}')
    outcomes: list[str] = []
    with peer.answer(OK, refused, OK, refused) as client:
        client.post("/a", dry_run=True)
        outcomes.append(client.outcome)
        with pytest.raises(errors.Invalid):
            client.post("/b")
        outcomes.append(client.outcome)
        client.post("/c")
        outcomes.append(client.outcome)
        with pytest.raises(errors.Invalid):
            client.post("/d")
        outcomes.append(client.outcome)

    assert outcomes == ["nothing", "nothing", "changed", "changed"]


def test_an_expired_certificate_is_renewed_once(peer: Peer) -> None:
    expired = problem(401, b'{"code": "certificate_expired", "detail": "expired"}')
    renewed: list[Client] = []
    with peer.answer(expired, OK, expired) as client:
        client.renew = renewed.append
        client.get("/a")
        with pytest.raises(errors.Unauthenticated):
            client.get("/b")

    assert renewed == [client]


def test_a_certificate_is_renewed_once_when_an_answer_asks_for_it(peer: Peer) -> None:
    asking = OK.replace(b"\r\nETag", b"\r\nHenge-Renew: 1\r\nETag")
    refusing = problem(404, b'{"code": "no_such_object", "detail": "none"}', b"Henge-Renew: 1\r\n")
    renewed: list[str] = []
    with peer.answer(OK, refusing, asking, asking) as client:
        client.renew_early = lambda client: renewed.append(client.outcome)
        client.get("/a")
        with pytest.raises(errors.NotFound):
            client.get("/b")
        assert renewed == []
        assert client.post("/c").revision == 1
        client.get("/d")

    assert renewed == ["changed"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no http\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 99999 x\r\n\r\n",
        b"\x15\x03\x01",
    ],
)
def test_what_does_not_speak_http_is_unreachable(peer: Peer, answer: bytes) -> None:
    with peer.answer(answer) as client, pytest.raises(errors.Unreachable) as refusal_:
        client.get("/a").json()

    assert "the peer" in refusal_.value.message


@pytest.mark.parametrize(
    "head",
    [b"", b"Content-Length: 1001\r\n", b"Content-Length: 999999999999\r\n", b"Transfer-Encoding: chunked\r\n"],
    ids=["until the end", "one too many", "announced", "chunked"],
)
def test_an_answer_that_does_not_end_is_not_read_to_its_end(peer: Peer, head: bytes) -> None:
    chunk = b"3e9\r\n" if b"chunked" in head else b""
    with peer.answer(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + chunk + b"x" * 1001 + b"\r\n") as client:
        client.max_answer_bytes = 1000
        with pytest.raises(errors.TooLarge) as refusal_:
            client.get("/a")

    assert "the answer of the peer has more than 1000 bytes" in refusal_.value.message


def test_an_answer_of_the_most_that_is_taken_is_read(peer: Peer) -> None:
    with peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000) as client:
        client.max_answer_bytes = 1000
        assert len(client.get("/a").body) == 1000


def test_an_answer_that_is_no_json_is_said_so(peer: Peer) -> None:
    with peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>") as client, pytest.raises(errors.Malformed):
        client.get("/a").json()


def test_a_peer_that_is_silent_is_given_up(peer: Peer) -> None:
    client = Client("the peer", lambda timeout_s: UnixConnection(peer.path, timeout_s), answer_timeout_s=0.05)

    with pytest.raises(errors.Unreachable) as refusal_:
        client.get("/a")
    assert "no answer in time" in refusal_.value.message


def test_nobody_there_and_not_permitted_are_different(tmp_path: Path) -> None:
    client = Client("x", lambda timeout_s: UnixConnection(tmp_path / "absent", timeout_s))

    with pytest.raises(errors.Unreachable) as refusal_:
        client.get("/a")
    assert "no such file" in refusal_.value.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Malformed), (401, errors.Unauthenticated), (403, errors.Denied), (404, errors.NotFound),
        (409, errors.Conflict), (412, errors.Stale), (413, errors.TooLarge), (422, errors.Invalid),
        (429, errors.Limited), (500, errors.Internal), (503, errors.Unavailable), (507, errors.StorageFull),
        (418, errors.Internal), (502, errors.Internal),
    ],
)  # fmt: skip
def test_a_status_says_the_class_even_if_the_code_is_from_a_newer_daemon(status: int, kind: type[HengeError]) -> None:
    error = refusal(status, {}, b'{"code": "invented_in_2031", "detail": "too purple", "cure": "paint it"}')

    assert type(error) is kind
    assert (error.message, error.cure, error.extra["code"]) == ("too purple", "paint it", "invented_in_2031")


def test_a_known_code_is_kept_with_its_spots() -> None:
    spots = b'[{"pointer": "/a", "message": "b", "object": "device/x"}, 5]'
    error = refusal(422, {"retry-after": "7"}, b'{"code": "does_not_fit", "detail": "no", "errors": ' + spots + b"}")

    assert error.code == "does_not_fit"
    assert [(one.pointer, one.message, one.object) for one in error.problems] == [("/a", "b", "device/x")]
    assert error.extra["retry_after_s"] == 7


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b"[" * 100_000, b'{"errors": 5}', b"\xff"])
def test_any_body_makes_an_error(body: bytes) -> None:
    assert refusal(500, {}, body).message == "the daemon answered 500"


def test_a_certificate_of_the_daemon_that_ended_is_told_with_both_dates_and_the_command() -> None:
    told = unreachable("https://kallisto.lan:4364", CertificateEnded(1_800_000_000, 2_700_000_000))

    assert (told.code, "2027-01-15" in told.message, "2055-07-24" in told.message) == ("pin_mismatch", True, True)
    assert "timedatectl" in told.cure
