"""The session machine: transcripts, a table without holes, two machines back to back, and the document's copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import session as machine
from henge_protocol.errors import CODES
from henge_protocol.header import WireError
from henge_protocol.model import digest_of
from henge_protocol.session import INITIAL, TRANSITIONS, Role, Session
from henge_protocol.wire import Bye, Config, Error, Hello, Message, Receipt, Report, Welcome, decode, encode
from tests.vectors import run_vectors
from tests.vectors.henge_ground import IMPLEMENTATION, MESSAGES

TOP = Path(__file__).parents[2]
PROTOCOL = (TOP / "docs" / "protocol.md").read_text("utf-8")
SESSIONS = run_vectors.load(str(TOP / "tests" / "vectors"), "sessions")
ROLES: tuple[Role, ...] = ("daemon", "device")
EMPTY = digest_of(b"{}")
OTHER = digest_of(b'{"a":1}')
SAMPLES: dict[str, Message] = {
    "hello": Hello(),
    "report": Report(digest=OTHER),
    "final report": Report(digest=EMPTY),
    "welcome": Welcome(),
    "config": Config(digest=EMPTY, document=b"{}"),
    "receipt": Receipt(digest=EMPTY),
    "error": Error("bad_frame"),
    "bye": Bye("stopping"),
}
STATES = [(role, state) for role in ROLES for state in TRANSITIONS[role]]
SENT_BY = {"daemon": {"welcome", "config", "receipt", "error", "bye"}, "device": {"hello", "report", "error"}}


def put_into(role: Role, state: str) -> Session:
    """A session in ``state``, by the shortest way through the table."""
    trails: list[tuple[str, ...]] = [()]
    while trails:
        trail = trails.pop(0)
        session = Session(role, now=0.0)
        for happening in trail:
            take(session, happening)
        if session.state == state:
            return session
        trails += [(*trail, happening) for happening in TRANSITIONS[role][session.state]]
    raise AssertionError(f"{state} is out of reach")


def take(session: Session, happening: str) -> None:
    way, _, what = happening.partition(" ")
    if way == "send":
        session.send(SAMPLES[what], now=0.0)
    else:
        assert session.receive(encode(SAMPLES[what]), now=0.0).event == SAMPLES[what]


@pytest.mark.parametrize("case", SESSIONS, ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    run_vectors.run_case(IMPLEMENTATION, "sessions", case)


@pytest.mark.parametrize(("role", "state"), STATES)
def test_every_state_can_be_reached(role: Role, state: str) -> None:
    assert put_into(role, state).closed is (state == "closed")


@pytest.mark.parametrize("role", ROLES)
def test_the_table_leads_nowhere_outside_of_itself(role: Role) -> None:
    table = TRANSITIONS[role]
    happenings = {happening for state in table.values() for happening in state}

    assert INITIAL[role] in table
    assert {following for state in table.values() for following in state.values()} <= set(table)
    assert {one.partition(" ")[2] for one in happenings} <= set(SAMPLES)
    assert {one.split()[-1] for one in happenings if one.startswith("send")} == SENT_BY[role]


def test_each_message_that_one_role_sends_the_other_takes_somewhere() -> None:
    for role, other in (("daemon", "device"), ("device", "daemon")):
        taken = {one.split()[-1] for state in TRANSITIONS[other].values() for one in state if one.startswith("recv")}

        assert taken == SENT_BY[role]


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("message", [kind() for kind in MESSAGES if kind not in (Report, Config)], ids=lambda m: m.type)
def test_every_message_is_taken_answered_or_ends_the_link(role: Role, state: str, message: Message) -> None:
    session = put_into(role, state)
    following = TRANSITIONS[role][state].get(f"recv {message.type}")

    step = session.receive(encode(message), now=0.0)

    if following is not None:
        assert (step.event, step.reply, step.close) == (message, None, None)
        assert session.state == following
    elif state == "closed":
        assert step == machine.Step()
    elif step.reply is not None:
        assert decode(step.reply) == Error("unexpected", f"{message.type} is not expected in state {state}")
        assert session.state == state
    else:
        assert step == machine.Step(close=machine.Close(machine.CLOSE_POLICY, "unexpected"))
        assert session.closed


@pytest.mark.parametrize(("role", "state"), STATES)
@pytest.mark.parametrize("what", sorted(SAMPLES))
def test_only_what_the_table_says_may_be_sent(role: Role, state: str, what: str) -> None:
    session = put_into(role, state)
    final = what == "final report" and session.in_flight == EMPTY
    following = TRANSITIONS[role][state].get(f"send {'final report' if final else SAMPLES[what].type}")

    if following is None:
        with pytest.raises(LookupError, match=f"a {role} in state {state} may not send"):
            session.send(SAMPLES[what], now=0.0)
        assert session.state == state
    else:
        assert session.send(SAMPLES[what], now=0.0) == encode(SAMPLES[what])
        assert session.state == following


@pytest.mark.parametrize(("role", "state"), STATES)
def test_an_answer_to_a_useless_frame_is_one_that_the_table_allows(role: Role, state: str) -> None:
    session = put_into(role, state)

    step = session.receive(b"{", now=0.0)

    assert (step.reply is not None) == (TRANSITIONS[role][state].get("send error") == state)
    assert (step.close is not None) == (step.reply is None and state != "closed")


def test_a_frame_that_is_written_already_is_only_noted() -> None:
    session = put_into("daemon", "idle")

    session.sent(SAMPLES["config"], now=0.0)

    assert (session.state, session.in_flight) == ("delivering", EMPTY)


def test_an_owner_may_bring_its_own_reader() -> None:
    def refuse(frame: bytes | str) -> Message:
        raise WireError("unknown_type", "x" * 1000)

    session = Session("device", now=0.0, decode=refuse)
    session.send(Hello(), now=0.0)

    assert session.receive(encode(Welcome()), now=0.0).close == machine.Close(1008, "unknown_type")


def test_an_answer_is_never_longer_than_a_peer_may_read() -> None:
    def refuse(frame: bytes | str) -> Message:
        if frame == b"bad":
            raise WireError("bad_frame", "x" * 1000)
        return decode(frame)

    session = Session("daemon", now=0.0, decode=refuse)
    session.receive(encode(Hello()), now=0.0)
    session.send(Welcome(), now=0.0)
    reply = session.receive(b"bad", now=0.0).reply

    assert reply is not None
    assert decode(reply) == Error("bad_frame", "x" * machine.MAX_FAULT_CHARS)


frames = st.sampled_from([encode(message) for message in SAMPLES.values()] + [b"", b"{", b"\xff", b'{"type":"patch"}'])


@given(role=st.sampled_from(ROLES), steps=st.lists(st.tuples(frames, st.floats(0, 100)), max_size=12))
def test_whatever_a_peer_sends_only_answers_come_of_it(role: Role, steps: list[tuple[bytes, float]]) -> None:
    session, now, closes = Session(role, now=0.0), 0.0, 0
    for frame, pause_s in steps:
        now += pause_s
        closes += session.receive(frame, now=now).close is not None
        closes += session.tick(now=now) is not None

    assert closes <= 1, "a link ends once"


@given(st.lists(st.sampled_from(["config", "applied", "rejected", "applying", "stale", "tick"]), max_size=30))
def test_two_machines_back_to_back_agree_on_what_is_in_flight(actions: list[str]) -> None:
    daemon, device, now = Session("daemon", now=0.0), Session("device", now=0.0), 0.0
    daemon.receive(device.send(Hello(), now=now), now=now)
    device.receive(daemon.send(Welcome(), now=now), now=now)
    for number, action in enumerate(actions):
        document = b"%d" % number
        if action == "tick":
            now += 1.0
            assert daemon.tick(now=now) is None
            assert device.tick(now=now) is None
        elif action == "config":
            if daemon.state == "idle":
                device.receive(daemon.send(Config(digest=digest_of(document), document=document), now=now), now=now)
        else:
            digest = OTHER if action == "stale" else device.in_flight or OTHER
            state = "applied" if action == "stale" else action
            daemon.receive(device.send(Report(digest=digest, state=state), now=now), now=now)

        assert daemon.in_flight == device.in_flight
        assert (daemon.state == "delivering") == (device.state == "applying") == bool(daemon.in_flight)


# --- docs/protocol.md -------------------------------------------------------------------------------------


def test_the_document_has_the_table_that_the_code_runs() -> None:
    table = PROTOCOL.partition("<!-- transitions -->")[2].partition("<!-- /transitions -->")[0]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.strip().splitlines()[2:]]
    ours = [
        (role, state, happening, following)
        for role, states in TRANSITIONS.items()
        for state, happenings in states.items()
        for happening, following in happenings.items()
    ]

    assert rows == ours


def test_the_document_says_the_times_and_limits_that_the_code_keeps() -> None:
    assert f"first frame, within {machine.HELLO_TIMEOUT_S:g} s" in PROTOCOL
    assert f"`confirm_s` + {machine.REPORT_GRACE_S:g} s" in PROTOCOL
    assert f"| useless frames | {machine.MAX_FAULTS} within {machine.FAULT_WINDOW_S:g} s | close 1008 |" in PROTOCOL


@pytest.mark.parametrize("name", sorted(name for name in vars(machine) if name.startswith("CLOSE_")))
def test_the_document_names_every_close_code(name: str) -> None:
    table = PROTOCOL.partition("## Close codes")[2].partition("\n## ")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]

    assert len([cell for cell in first_cells if str(getattr(machine, name)) in cell]) == 1


def test_reasons_of_closing_are_codes_of_ours() -> None:
    assert {"hello_timeout", "unexpected", "unsupported_protocol", "replaced", "revoked"} <= set(CODES)


def test_a_delivery_that_is_abandoned_makes_room_for_the_next() -> None:
    daemon = Session("daemon", now=0.0)
    daemon.receive(encode(Hello()), now=0.0)
    daemon.send(Welcome(), now=0.0)
    daemon.send(Config(digest=digest_of(b"{}"), intent="check", document=b"{}"), now=0.0)
    daemon.abandon()

    assert (daemon.state, daemon.in_flight) == ("idle", "")
    late = daemon.receive(encode(Report(digest=digest_of(b"{}"), state="checked")), now=1.0)
    assert isinstance(late.event, Report)
    assert daemon.state == "idle"
