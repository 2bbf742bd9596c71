"""The vectors themselves: their form, their completeness, and that their runner stays in MicroPython's dialect."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.vectors import run_vectors
from tests.vectors.henge_ground import IMPLEMENTATION

FOLDER = Path(__file__).parent / "vectors"
FRAMES = run_vectors.load(str(FOLDER), "frames")


def write(folder: Path, suite: str, *cases: dict[str, Any], **more: Any) -> str:
    (folder / f"{suite}.json").write_text(json.dumps({"about": "x", "cases": cases, **more}), "utf-8")
    return str(folder)


def frame(**changes: Any) -> dict[str, Any]:
    case = {"name": "a", "why": "b", "verdict": "invalid", "to": "both", "in": "{", "error": "bad_frame"} | changes
    return {key: value for key, value in case.items() if value is not None}


def step(**changes: Any) -> dict[str, Any]:
    steps = [{"in": "{", "state": "closed", "close": [1008, "bad_frame"]} | changes]
    return {"name": "a", "why": "b", "verdict": "invalid", "role": "daemon", "steps": steps}


def test_the_ground_passes_every_vector() -> None:
    passed, failed, skipped = run_vectors.run(IMPLEMENTATION, str(FOLDER))

    assert failed == []
    assert len(passed) > 350
    assert all(name.startswith("beacons: ") for name in skipped), "only beacons have cases beyond the runner"


@pytest.mark.parametrize("type_", run_vectors.MESSAGE_TYPES)
def test_each_message_type_has_valid_and_invalid_cases(type_: str) -> None:
    valid = [case for case in FRAMES if case.get("expect", {}).get("type") == type_]
    invalid = [
        case for case in FRAMES if "error" in case and f'"type":"{type_}"' in run_vectors.text_of(case.get("in", ""))
    ]

    assert valid
    assert invalid


def test_an_implementation_is_asked_only_for_what_it_has() -> None:
    passed, failed, skipped = run_vectors.run({"roles": (), "digest": IMPLEMENTATION["digest"]}, str(FOLDER))

    assert failed == []
    assert {name.partition(":")[0] for name in passed} == {"bodies"}
    assert len(skipped) > 300


def test_a_wrong_implementation_is_found_out() -> None:
    wrong = IMPLEMENTATION | {
        "decode": lambda frame: (None, "bad_frame"),
        "delay": lambda attempt, chance: 0.5,
        "session": lambda role, now: IMPLEMENTATION["session"]("device" if role == "daemon" else "daemon", now),
        "canonical": lambda value: (b"{}", None),
        "parse_txt": lambda data: (None, None),
    }
    _, failed, _ = run_vectors.run(wrong, str(FOLDER))

    assert {name.partition(":")[0] for name, _ in failed} == {"frames", "sessions", "backoff", "bodies", "beacons"}


@pytest.mark.parametrize(
    "change",
    [
        {"mood": "good"},
        {"why": None},
        {"why": ""},
        {"verdict": "perhaps"},
        {"to": "everybody"},
        {"hex": "00"},
        {"in": None},
        {"error": None},
        {"expect": {"type": "bye"}},
        {"verdict": "valid"},
    ],
)
def test_a_frame_of_the_wrong_form_fails_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(run_vectors.Failed):
        run_vectors.load(write(tmp_path, "frames", frame(**change)), "frames")


@pytest.mark.parametrize("change", [{"mood": "good"}, {"tick": True}])
def test_a_step_of_the_wrong_form_fails_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(run_vectors.Failed):
        run_vectors.load(write(tmp_path, "sessions", step(**change)), "sessions")


def test_a_name_used_twice_fails_the_file(tmp_path: Path) -> None:
    with pytest.raises(run_vectors.Failed):
        run_vectors.load(write(tmp_path, "frames", frame(), frame()), "frames")


def test_an_unknown_key_of_the_file_fails_it(tmp_path: Path) -> None:
    with pytest.raises(run_vectors.Failed):
        run_vectors.load(write(tmp_path, "frames", frame(), more=[]), "frames")


@pytest.mark.parametrize(
    "change",
    [
        {"close": None},
        {"close": [1008, "unexpected"]},
        {"state": "idle"},
        {"event": "hello"},
        {"reply": "bad_frame"},
        {"in_flight": "00"},
    ],
)
def test_a_session_that_goes_another_way_fails(change: dict[str, Any]) -> None:
    with pytest.raises(run_vectors.Failed):
        run_vectors.run_case(IMPLEMENTATION, "sessions", step(**change))


def test_numbers_of_another_kind_are_not_the_same() -> None:
    assert run_vectors.same({"a": [1, (2,)]}, {"a": [1, [2]]})
    assert not run_vectors.same({"a": 1}, {"a": True})
    assert not run_vectors.same([1], [1.0])
    assert not run_vectors.same({"a": 1}, {"b": 1})


def test_the_runner_stays_in_the_dialect_of_micropython() -> None:
    """What MicroPython lacks: annotations worth the name, match, except*, raise from, positional-only, most modules."""
    tree = ast.parse((FOLDER / "run_vectors.py").read_text("utf-8"))
    nodes = list(ast.walk(tree))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}

    assert imported == {"binascii", "hashlib", "json"}
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom | ast.Match | ast.TryStar | ast.AnnAssign)]
    assert not [node for node in nodes if isinstance(node, ast.JoinedStr | ast.AsyncFunctionDef | ast.NamedExpr)]
    assert not [node for node in nodes if isinstance(node, ast.Raise) and node.cause is not None]
    assert not [node for node in nodes if isinstance(node, ast.arguments) and node.posonlyargs]
    assert not [node for node in nodes if isinstance(node, ast.arg) and node.annotation]
