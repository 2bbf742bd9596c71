"""The one error family, and that docs/errors.md tells its codes as the code has them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hengd.http.problems import STATUS
from henge_protocol import errors
from henge_protocol.errors import CODES, HengeError, Problem
from hengectl import refusal

TOP = Path(__file__).parents[2]
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HengeError)}
CLASS_OF = {kind.kind: kind for kind in KINDS.values() if kind is not HengeError}
PROGRAMS = ("hengd", "hengectl", "agent/henge_agent", "henge_protocol")


def rows(width: int, first: str) -> list[list[str]]:
    """Rows of docs/errors.md with ``width`` cells, of tables whose first heading is ``first``."""
    found, inside = [], False
    for line in (TOP / "docs" / "errors.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first and len(cells) == width:
            inside = True
        elif inside and not set(cells[0]) <= set("- "):
            found.append([cell.strip("`") for cell in cells])
    return found


CODE_ROWS = {row[0]: row for row in rows(5, "code")}


def kinds_of(code: str) -> list[str]:
    return [kind.strip(" `") for kind in CODE_ROWS[code][1].split(",")]


def raised() -> set[tuple[str, str, str]]:
    """(code, kind, program) of every error that the source makes with both written out."""
    found = set()
    for program in PROGRAMS:
        for file in (TOP / program).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    kind = KINDS.get("Malformed" if name == "WireError" else name)
                    if kind is not None and kind is not HengeError:
                        found.add((str(node.args[0].value), kind.kind, program))
    return found


def words_of(program: str) -> set[str]:
    """Every text that stands by itself in a program's source."""
    files = (TOP / program).rglob("*.py")
    trees = [ast.parse(file.read_text("utf-8")) for file in files if file.name != "errors.py"]
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_an_error_carries_what_a_person_and_a_program_need() -> None:
    spot = Problem("/spec/values/a", "too long", "device/lamp-1")
    error = errors.Invalid(
        "does_not_fit", "lamp-1 does not fit", cure="hengectl why lamp-1", problems=[spot], extra={"n": 1}
    )

    assert (error.code, error.message, error.cure) == ("does_not_fit", "lamp-1 does not fit", "hengectl why lamp-1")
    assert (error.problems, error.extra, error.kind) == ((spot,), {"n": 1}, "invalid")
    assert str(error) == "lamp-1 does not fit"


def test_an_error_without_more_has_nothing_more() -> None:
    error = errors.NotFound("no_such_device", "lamp-9")

    assert (error.cure, error.problems, error.extra) == ("", (), {})
    assert Problem("", "x").object == ""


def test_a_code_that_is_not_listed_is_our_own_fault() -> None:
    with pytest.raises(LookupError, match="no_such_code"):
        HengeError("no_such_code", "x")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_class_has_a_kind_of_its_own(name: str) -> None:
    kinds = [kind.kind for kind in KINDS.values() if kind is not HengeError]

    assert KINDS[name].kind
    assert len(set(kinds)) == len(kinds)
    assert KINDS[name].kind in STATUS or name in ("Unreachable", "Untrusted"), "what clients raise has no status"


def test_every_code_that_is_raised_is_listed() -> None:
    assert {code for code, _, _ in raised() if not code.startswith("x")} <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_used(code: str) -> None:
    assert any(code in words for words in ALL_WORDS), f"nothing says {code}"


ALL_WORDS = [words_of(program) for program in PROGRAMS]


def test_the_document_lists_the_codes_in_order_with_their_meaning() -> None:
    assert {code: row[4] for code, row in CODE_ROWS.items()} == CODES
    assert list(CODE_ROWS) == list(CODES)


def test_the_document_lists_every_kind_with_status_and_exit_code() -> None:
    documented = {row[0]: (row[1], row[2]) for row in rows(4, "kind")}
    ours = {kind: (str(STATUS.get(kind, "-")), str(refusal.exit_code(made("internal", kind)))) for kind in CLASS_OF}

    assert documented == ours


@pytest.mark.parametrize(("code", "kind", "program"), sorted(raised()))
def test_the_document_knows_every_kind_that_a_code_is_raised_with(code: str, kind: str, program: str) -> None:
    assert kind in kinds_of(code)
    if program == "hengd" and CODE_ROWS[code][2] != "-":
        assert str(STATUS[kind]) in CODE_ROWS[code][2]


@pytest.mark.parametrize("code", CODES)
def test_status_and_exit_code_follow_from_the_kind(code: str) -> None:
    _, _, status, exit_codes, _ = CODE_ROWS[code]
    kinds = [kind for kind in kinds_of(code) if kind != "link"]
    statuses = {str(STATUS[kind]) for kind in kinds if kind in STATUS}
    exits = {str(refusal.exit_code(made(code, kind))) for kind in kinds}

    assert status == "-" or set(status.split(", ")) <= statuses
    assert exit_codes == "-" or set(exit_codes.split(", ")) == exits


def made(code: str, kind: str) -> HengeError:
    return CLASS_OF[kind](code, "x")
