from __future__ import annotations

import pytest

from henge_protocol import errors
from henge_protocol.errors import HengeError, Invalid, Problem, Unreachable
from hengectl import refusal

EXIT_CODES = [
    (errors.Malformed, "bad_yaml", 6),
    (errors.Invalid, "does_not_fit", 6),
    (errors.Invalid, "bad_usage", 2),
    (errors.TooLarge, "too_large", 6),
    (errors.UnsupportedMedia, "unsupported_media", 6),
    (errors.NotFound, "no_such_device", 3),
    (errors.NotFound, "no_such_context", 3),
    (errors.Gone, "join_expired", 3),
    (errors.Unauthenticated, "certificate_required", 4),
    (errors.Denied, "wrong_role", 4),
    (errors.Conflict, "exists", 5),
    (errors.Stale, "stale", 5),
    (errors.PreconditionRequired, "if_match_required", 5),
    (errors.Unreachable, "no_daemon", 7),
    (errors.Untrusted, "pin_mismatch", 7),
    (errors.Unavailable, "stopping", 7),
    (errors.TimedOut, "request_timeout", 8),
    (errors.Limited, "rate_limited", 1),
    (errors.StorageFull, "storage_full", 1),
    (errors.Internal, "internal", 1),
]


@pytest.mark.parametrize(("kind", "code", "exit_code"), EXIT_CODES)
def test_each_kind_of_refusal_has_its_exit_code(kind: type[HengeError], code: str, exit_code: int) -> None:
    assert refusal.exit_code(kind(code, "no")) == exit_code


def test_a_refused_change_says_what_where_and_cure() -> None:
    problems = [
        Problem("/spec/values/sampling/interval_s", "0 is below the minimum 1", "group/greenhouse"),
        Problem("/spec/values/mqtt/port", '"x" is not a whole number', "group/greenhouse"),
    ]
    error = Invalid(
        "does_not_fit", "group/greenhouse does not fit", cure="hengectl explain greenhouse", problems=problems
    )
    error.extra["places"] = ["g.yaml:7:17", "g.yaml:12:11"]

    assert refusal.lines_of(error, writes=True, outcome="nothing") == [
        "Error: group/greenhouse does not fit",
        "  group/greenhouse   sampling.interval_s   0 is below the minimum 1    g.yaml:7:17",
        '  group/greenhouse   mqtt.port             "x" is not a whole number   g.yaml:12:11',
        "Nothing was changed.",
        "Try: hengectl explain greenhouse",
    ]


def test_a_change_without_an_answer_is_not_called_undone() -> None:
    lines = refusal.lines_of(Unreachable("unreachable", "gone"), writes=True, outcome="unknown")

    assert lines == ["Error: gone", refusal.UNKNOWN_OUTCOME]


def test_a_refused_question_says_nothing_about_changes() -> None:
    assert refusal.lines_of(Invalid("bad_path", "no"), writes=False, outcome="nothing") == ["Error: no"]


def test_hundreds_of_problems_are_cut() -> None:
    problems = [Problem(f"/f{n}", "bad", f"device/d{n}") for n in range(300)]
    lines = refusal.lines_of(Invalid("does_not_fit", "no", problems=problems), writes=False, outcome="nothing")

    assert lines[-1] == "  ... and 280 more"
    assert len(lines) == refusal.MAX_PROBLEMS + 2


def test_what_a_peer_says_cannot_move_the_cursor() -> None:
    error = Invalid("does_not_fit", "a\x1b[2Jb", cure="c\rd", problems=[Problem("/x", "e\x07f", "device/\u202eg")])
    text = "".join(refusal.lines_of(error, writes=False, outcome="nothing"))

    assert text.isprintable()


@pytest.mark.parametrize(
    ("pointer", "field"),
    [
        ("/wifi/ssid", "wifi.ssid"),
        ("/spec/values/wifi/ssid", "wifi.ssid"),
        ("/spec/selector", "spec.selector"),
        ("/spec/values", "spec.values"),
        ("/spec/values/a.b/c", "/a.b/c"),
        ("/a~1b", "/a~1b"),
        ("", ""),
    ],
)
def test_a_pointer_is_shown_as_people_write_fields(pointer: str, field: str) -> None:
    assert refusal.field_of(pointer) == field
