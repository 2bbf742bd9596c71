"""Frames: the vectors, that what is written reads back, and that nothing but ``WireError`` comes of any bytes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import header, wire
from henge_protocol.errors import CODES
from henge_protocol.model import FINAL_STATES, INTENTS, REPORT_STATES, digest_of
from tests.vectors import run_vectors
from tests.vectors.henge_ground import CLASS_OF, IMPLEMENTATION, MESSAGES

TOP = Path(__file__).parents[2]
PROTOCOL = (TOP / "docs" / "protocol.md").read_text("utf-8")
FRAMES = run_vectors.load(str(TOP / "tests" / "vectors"), "frames")

digests = st.binary(max_size=8).map(digest_of)
numbers = st.integers(0, wire.MAX_INTEGER)
epochs = st.text("0123456789abcdefghijklmnopqrstuvwxyz", max_size=32)
codes = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", max_size=48)
visible = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=64)
free = st.text(st.characters(exclude_categories=["Cs"]), max_size=header.MAX_TEXT_CHARS)
facts = st.dictionaries(
    visible,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.booleans()
    | st.integers(-wire.MAX_INTEGER, wire.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False),
    max_size=5,
)
ranges = st.tuples(st.integers(1, wire.MAX_VERSION), st.integers(1, wire.MAX_VERSION)).map(
    lambda pair: (min(pair), max(pair))
)
sizes = st.integers(0, wire.MAX_SIZE_BYTES)
days = st.integers(0, wire.MAX_DAY_S)
field_errors = st.builds(wire.FieldError, free, free)

lasting = st.sampled_from(sorted(REPORT_STATES - {"checked"}))
"""States to be in; a look at a candidate is only reported."""
messages = st.one_of(
    st.builds(
        wire.Hello, ranges, epochs, numbers, st.just("") | digests, lasting,
        visible, visible, facts, st.integers(0, wire.MAX_CONTACT_S), sizes,
    ),
    st.builds(
        wire.Report, epochs, numbers, digests, st.sampled_from(sorted(REPORT_STATES - {"none"})), codes,
        st.lists(field_errors, max_size=3).map(tuple),
    ),
    st.builds(
        wire.Welcome, st.integers(0, wire.MAX_VERSION), epochs, visible, numbers, st.integers(0, wire.MAX_PING_S),
        sizes, numbers, st.integers(0, wire.MAX_RENEW_WITHIN_S),
    ),
    st.builds(wire.Config, epochs, numbers, digests, days, st.sampled_from(sorted(INTENTS)), st.binary(max_size=200)),
    st.builds(wire.Receipt, numbers, st.just("") | digests, lasting),
    st.builds(wire.Error, codes, free),
    st.builds(wire.Bye, codes, days),
)  # fmt: skip

DIGEST = digest_of(b"{}")


@pytest.mark.parametrize("case", FRAMES, ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    run_vectors.run_case(IMPLEMENTATION, "frames", case)


@pytest.mark.parametrize("case", [case for case in FRAMES if "error" in case], ids=lambda case: case["name"])
def test_a_refused_vector_is_refused_here_however_lenient_others_are(case: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError) as refusal:
        wire.decode(run_vectors.data_of(case))

    assert refusal.value.code == case["error"]
    assert refusal.value.code in CODES
    assert len(refusal.value.message) < 200, "what a stranger sent is shown in part"
    assert refusal.value.message.isascii()


@given(messages)
def test_what_is_written_reads_back(message: wire.Message) -> None:
    frame = wire.encode(message)

    assert wire.decode(frame) == message
    assert wire.encode(wire.decode(frame)) == frame


@given(messages)
def test_a_header_is_one_line_of_real_utf_8(message: wire.Message) -> None:
    head, _, _ = wire.encode(message).partition(b"\n")
    header = json.loads(head)

    assert json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode() == head
    assert next(iter(header)) == "type"


@given(st.binary(max_size=300) | st.text(max_size=100))
def test_any_bytes_give_a_message_or_a_wire_error(frame: bytes | str) -> None:
    try:
        message = wire.decode(frame)
    except wire.WireError as error:
        assert error.code in ("bad_frame", "unknown_type")
    else:
        assert isinstance(message, MESSAGES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    type_=st.sampled_from(sorted(CLASS_OF)),
    header=st.dictionaries(
        st.sampled_from(sorted({name for kind in MESSAGES for name in kind.__slots__} | {"size"})), json_values
    ),
    tail=st.sampled_from([b"", b"\n", b"\n{}"]),
)
def test_any_values_of_known_fields_give_a_message_that_reads_back_or_a_wire_error(
    type_: str, header: dict[str, Any], tail: bytes
) -> None:
    frame = json.dumps({"type": type_, **header}).encode() + tail
    try:
        message = wire.decode(frame)
    except wire.WireError:
        return

    assert wire.decode(wire.encode(message)) == message


def test_text_from_a_socket_may_hold_what_utf_8_cannot() -> None:
    with pytest.raises(wire.WireError):
        wire.decode('{"type":"bye","reason":"\ud800"}')


def test_a_frame_is_text_or_bytes() -> None:
    assert wire.decode('{"type":"bye"}') == wire.decode(b'{"type":"bye"}') == wire.Bye()


def test_a_document_is_intact_when_its_bytes_hash_to_the_digest() -> None:
    assert wire.Config(digest=DIGEST, document=b"{}").intact
    assert not wire.Config(digest=DIGEST, document=b"{ }").intact


@pytest.mark.parametrize("state", sorted(REPORT_STATES))
def test_a_report_is_final_when_its_state_ends_a_delivery(state: str) -> None:
    assert wire.Report(digest=DIGEST, state=state).final is (state in FINAL_STATES)


@pytest.mark.parametrize(
    ("theirs", "ours", "chosen"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 5), (1, 3), 3),
        ((2, 3), (1, 5), 3),
        ((3, 5), (1, 3), 3),
        ((2, 5), (1, 1), None),
        ((1, 1), (2, 3), None),
    ],
)
def test_the_highest_common_version_is_chosen(
    theirs: tuple[int, int], ours: tuple[int, int], chosen: int | None
) -> None:
    assert wire.choose_version(theirs, ours) == chosen


def test_the_newest_of_our_own_versions_is_what_we_welcome_with() -> None:
    assert wire.choose_version(wire.SUPPORTED, wire.SUPPORTED) == wire.Welcome().protocol == wire.PROTOCOL_VERSION


def test_a_range_of_versions_is_told_in_words() -> None:
    assert [wire.versions_text(one) for one in ((1, 1), (1, 7))] == ["1", "1 to 7"]


# --- docs/protocol.md -------------------------------------------------------------------------------------


def documented_messages() -> dict[str, list[str]]:
    """The table of messages: type -> its fields in order."""
    table = PROTOCOL.partition("| type | from | field |")[2].partition("\n\n")[0]
    found: dict[str, list[str]] = {}
    type_ = ""
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        type_ = cells[0].strip("`") or type_
        found.setdefault(type_, []).extend(cell.strip("` ") for cell in cells[2].split(","))
    return found


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.type)
def test_the_document_names_every_field_of_every_message(kind: type[wire.Message]) -> None:
    own = [field.name for field in fields(kind)]
    expected = [("size" if name == "document" else name) for name in own]

    assert sorted(documented_messages()[kind.type]) == sorted(expected)


def test_the_document_names_no_other_message() -> None:
    assert set(documented_messages()) == set(CLASS_OF)


def test_the_document_lists_the_states_and_which_end_a_delivery() -> None:
    table = PROTOCOL.partition("| state | meaning | ends a delivery |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]

    assert {row[0].strip("`") for row in rows} == REPORT_STATES
    assert {row[0].strip("`") for row in rows if row[2] == "yes"} == FINAL_STATES


@pytest.mark.parametrize(
    "said",
    [
        f"| header line | {wire.MAX_HEADER_BYTES // 1024} KiB | `bad_frame` |",
        f"| message from a device | {wire.MAX_DEVICE_FRAME_BYTES // 1024} KiB | close 1009 |",
        f"at most {wire.MAX_FACTS} entries",
        f"text (at most {wire.MAX_FACT_CHARS} characters)",
        f"at most {wire.MAX_ERRORS} of `{{pointer, message}}`",
        f"at most {header.MAX_TEXT_CHARS} characters each",
        f"0 to {wire.MAX_CONTACT_S:,}",
        f"seconds, at most {wire.MAX_DAY_S:,}",
        f"seconds, at most {wire.MAX_PING_S:,}",
        f"seconds, at most {wire.MAX_RENEW_WITHIN_S:,}",
        f"This document describes version {wire.PROTOCOL_VERSION}.",
    ],
)
def test_the_document_says_the_limits_that_the_code_keeps(said: str) -> None:
    assert said in PROTOCOL
