"""What runs on boards uses only what MicroPython has, found by walking the syntax tree; and it stays small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.henge_micro.boards import REPOSITORY, SOURCE

FILES = sorted([*SOURCE.rglob("*.py"), *(REPOSITORY / "examples" / "micropython").rglob("*.py")])

LACKING = (
    ast.AnnAssign, ast.AsyncFor, ast.JoinedStr, ast.Match, ast.NamedExpr, ast.TryStar, ast.TypeIgnore,
)  # fmt: skip
"""Of these the compiler knows some by now (f-strings, walrus), but not on every port and not nested."""

MODULES = {
    "asyncio", "binascii", "gc", "hashlib", "json", "machine", "micropython", "network", "neopixel", "os", "socket",
    "struct", "sys", "time", "tls",
}  # fmt: skip
"""What 1.25 has on ESP32, RP2 and unix alike, or what is imported where it is caught that it is missing."""
ABSENT = {
    "asyncio": {"timeout", "TaskGroup", "shield", "to_thread", "wait", "Queue"},
    "os": {"path", "replace", "fsync", "environ", "makedirs", "walk"},
    "time": {"monotonic", "perf_counter", "strftime", "process_time"},
    "hashlib": {"new", "blake2b", "sha512"},
    "socket": {"create_connection", "AF_UNIX", "inet_aton", "IPPROTO_IP", "IP_ADD_MEMBERSHIP"},
    "json": {"JSONDecodeError"},
    "binascii": {"b2a_hex"},
}
METHODS = {
    "casefold", "expandtabs", "format_map", "fromkeys", "isalnum", "isascii", "isidentifier", "isprintable",
    "ljust", "removeprefix", "removesuffix", "rjust", "title", "translate", "zfill", "bit_length", "hexdigest",
    "cancelled", "add_done_callback", "with_traceback", "partialmethod",
}  # fmt: skip
"""Methods of built-in types that MicroPython lacks."""


def parsed(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_file_stays_in_the_dialect(path: Path) -> None:
    nodes = parsed(path)
    imported = {
        *(alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names),
        *(node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)),
    }
    used = {
        (node.value.id, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }

    assert not [type(node).__name__ for node in nodes if isinstance(node, LACKING)]
    assert not [node.lineno for node in nodes if isinstance(node, ast.Raise) and node.cause is not None]
    assert not [node for node in nodes if isinstance(node, ast.arguments) and node.posonlyargs]
    assert not [node.arg for node in nodes if isinstance(node, ast.arg) and node.annotation]
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns]
    assert {name.partition(".")[0] for name in imported} <= MODULES | {"henge_micro"}
    assert not [(module, name) for module, name in used if name in ABSENT.get(module, ())]
    assert not [node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr in METHODS]


def test_the_walk_finds_what_is_lacking(tmp_path: Path) -> None:
    cause = "try: pass\nexcept E as e: raise X from e"
    for text in ("import ssl", "f'{1}'", "''.zfill(8)", "import os\nos.path", cause):
        path = tmp_path / "bad.py"
        path.write_text(text)
        with pytest.raises(AssertionError):
            test_a_file_stays_in_the_dialect(path)
