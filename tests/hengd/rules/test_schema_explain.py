"""Reasons at bounded cost: what the engine would say of a piece is said of the whole, and nothing multiplies."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hengd.rules import schema_explain
from hengd.rules.schemas import CompiledSchema, compile_schema

MOST_BYTES = 400 * 1024**2
"""What explaining may take with everything around it; what it took before was gigabytes."""

INSISTING = {"allOf": [{"allOf": [{"type": "integer"}] * 32}] * 32}
ONE_OF_MANY = {"anyOf": [{"required": [f"k{number}"], "additionalProperties": False} for number in range(16)]}
LISTS_OF_THEM = {"anyOf": [{"type": "array", "items": ONE_OF_MANY}] * 16}
RECURSIVE = {
    "anyOf": [
        {"properties": {"c": {"$ref": "#/$defs/t"}}, "additionalProperties": {"type": kind}}
        for kind in ("integer", "boolean")
    ]
}


def nested(depth: int) -> dict[str, Any]:
    """An object within an object, so many times."""
    return {"c": nested(depth - 1)} if depth else {"z": "text"}


BLOW_UPS = {
    "alternatives in alternatives": (LISTS_OF_THEM, [{"z": number} for number in range(5000)]),
    "demands in demands": ({"items": INSISTING}, ["text"] * 5000),
    "more demands on each entry than are asked about at once": (
        {"items": {"allOf": [{"allOf": [INSISTING] * 2}] * 4}},
        ["text"] * 5000,
    ),
    "demands on fields without names": (
        {"additionalProperties": {"additionalProperties": INSISTING}},
        {f"k{k}": {f"j{j}": "text" for j in range(99)} for k in range(190)},
    ),
    "demands on a long list": ({"allOf": [{"allOf": [{"maxItems": 1}] * 32}] * 32}, [1] * 19000),
    "recursion": ({"$ref": "#/$defs/t"}, nested(28)),
    "long enums": ({"items": {"enum": [f"{'x' * 200}{number}" for number in range(1000)]}}, [1] * 19000),
    "whole numbers with fractions": ({"items": INSISTING}, [1] * 5000 + [1.0] * 5000),
}


def compiled(part: dict[str, Any]) -> CompiledSchema:
    """A schema with one field."""
    return compile_schema("x", {"type": "object", "properties": {"v": part}, "$defs": {"t": RECURSIVE}})


@pytest.mark.parametrize("name", BLOW_UPS)
def test_no_schema_makes_reasons_cost_gigabytes_or_minutes(name: str) -> None:
    """In a process of its own, whose kernel counts memory and processor time; 20 s are far from 0.2 and from 40."""
    script = f"from {__name__} import explain_within_bounds; explain_within_bounds({name!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]


def explain_within_bounds(name: str) -> None:
    """Ask for reasons; the kernel ends this process when they cost too much."""
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    part, value = BLOW_UPS[name]
    found = compiled(part).validate({"v": value})
    peak_bytes = peak_of_this_process()
    assert peak_bytes < MOST_BYTES, f"{peak_bytes:,} bytes"
    assert 1 <= len(found) <= 100


def peak_of_this_process() -> int:
    """Most bytes held since the program began; ``ru_maxrss`` would count what its parent held when it was started."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# --- pieces say what the whole says ---------------------------------------------------------------------------

LAMP: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": {"type": "integer"},
    "properties": {
        "name": {"type": "string", "maxLength": 3},
        "mode": {"enum": ["on", "off"]},
        "level": {"$ref": "#/$defs/level"},
        "pins": {
            "type": "array",
            "prefixItems": [{"const": 7}],
            "items": {"type": "integer", "minimum": 2},
            "maxItems": 4,
        },
        "net": {
            "allOf": [
                {"properties": {"ssid": {"type": "string"}}, "required": ["ssid"]},
                {"properties": {"channel": {"type": "integer"}}},
            ],
            "unevaluatedProperties": False,
        },
        "closed": {"properties": {"a": True, "b": False}, "additionalProperties": False},
        "free": {"patternProperties": {"^x": {"type": "boolean"}}, "additionalProperties": {"type": "null"}},
        "either": {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 5}]},
        "told": {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "dependentRequired": {"c": ["d"]}},
    },
    "$defs": {"level": {"type": "integer", "maximum": 9, "not": {"const": 4}}},
}

VAGUE = ("in more ways than can be told", "write 1 for 1.0")

MISFITS: list[dict[str, Any]] = [
    {},
    {"name": "long", "mode": "up", "other": "x", "more": 1},
    {"name": "a", "level": 4},
    {"name": "a", "level": "high", "pins": [1, 1, "x", 3, 4]},
    {"name": "a", "pins": 7, "net": {"channel": "x", "extra": 1}},
    {"name": "a", "closed": {"a": 1, "b": 2, "c": 3}, "free": {"xa": 1, "b": 2}},
    {"name": "a", "either": 7, "told": {"a": 1, "c": 2}},
    {"name": "a", "either": "x", "told": {"c": 2}},
    {"name": "a", "level": 1.0, "pins": [7, 3.0]},
]


@pytest.mark.parametrize("value", MISFITS)
def test_taken_apart_a_value_has_the_same_problems(value: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    schema = compile_schema("lamp", LAMP)
    whole = schema.validate(value)
    for cost in (3, 8, 20):
        monkeypatch.setattr(schema_explain, "MAX_COST", cost)
        apart = schema.validate(value)
        exact = {problem for problem in apart if not problem.message.endswith(VAGUE)}

        assert apart, cost
        assert exact <= set(whole), cost
        if len(exact) < len(apart):
            continue
        assert apart == whole, cost


def test_a_value_that_fits_has_no_problems_however_it_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_explain, "MAX_COST", 1)

    assert compile_schema("lamp", LAMP).validate({"name": "a", "either": 5.5, "pins": [7, 3]}) == []


def test_the_last_of_thousands_is_found_and_named() -> None:
    schema = compiled({"items": {"type": "object", "properties": {"colour": {"type": "string"}}}})
    (problem,) = schema.validate({"v": [{"colour": "red"}] * 6000 + [{"colour": 1}]})

    assert (problem.pointer, problem.message) == ("/v/6000/colour", "1 is not text")


def test_what_is_too_much_to_tell_hides_secrets_too() -> None:
    secret = {"writeOnly": True, "allOf": [{"allOf": [{"maxLength": 1}] * 32}] * 32}
    schema = compiled(secret)
    found = schema.validate({"v": "hunter2" * 8000})

    assert found
    assert not [problem for problem in found if "hunter2" in problem.message]
