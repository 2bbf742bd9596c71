"""The floors of DESIGN section 3: who may import whom, and what a program must never load."""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGES = {"henge_protocol": TOP, "hengd": TOP, "hengectl": TOP, "henge_agent": TOP / "agent"}
TOUCHING = {"browse", "keyfiles", "notify", "tls"}
"""The modules of the ground that may touch disk and network."""

# Runs in a process of its own. Loads what is not ours once, then forks: each child imports one module first of all.
IMPORT_EACH_ALONE = """
import importlib, os, sys, traceback
for name in sys.argv[1].split():
    importlib.import_module(name)
failed = []
for name in sys.stdin.read().split():
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(*failed)
"""

HEAVY = "aiohttp click cryptography.x509 jsonschema jsonschema_rs lmdb msgspec picows uvloop yaml zeroconf"


def python(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "agent")])}
    return subprocess.run(
        [sys.executable, *arguments], input=stdin, env=environment, cwd=TOP, capture_output=True, text=True, check=False
    )


def files_of(package: str) -> Iterator[tuple[str, Path]]:
    top = PACKAGES[package]
    for file in sorted((top / package).rglob("*.py")):
        parts = file.relative_to(top).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def modules_of(package: str) -> list[str]:
    return [name for name, _ in files_of(package)]


def pure_modules() -> list[tuple[str, Path]]:
    ground = [(name, file) for name, file in files_of("henge_protocol") if name != "henge_protocol"]
    return [(name, file) for name, file in ground if name.split(".")[1] not in TOUCHING]


def loaded_by(module: str) -> set[str]:
    """Every module in memory after importing just ``module``."""
    done = python("-c", f"import sys, {module}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_contracts_hold() -> None:
    done = python("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-logo")

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_pure_module_is_under_the_contract_of_the_ground() -> None:
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")

    listed = setup["importlinter:contract:ground"]["source_modules"].split()

    assert sorted(listed) == [name for name, _ in pure_modules()]


def test_every_resource_is_under_the_contract_of_resources() -> None:
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")
    tree = ast.parse((TOP / "hengd" / "app.py").read_text(encoding="utf-8"))
    routes = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name.endswith("Routes") for alias in node.names)
    }

    listed = setup["importlinter:contract:resources"]["modules"].split()

    assert sorted(listed) == sorted({*routes, "hengd.http.stream"})


def test_every_package_is_in_the_wheel() -> None:
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg", encoding="utf-8")

    found = [name for package in PACKAGES for name, file in files_of(package) if file.name == "__init__.py"]

    boards = ["henge_micro"]  # not imported by any of ours: `hengectl device add` copies its files

    assert sorted(setup["options"]["packages"].split()) == sorted(found + boards)


def test_every_module_imports_alone() -> None:
    """Whichever module comes first, no circle of imports shows."""
    modules = [name for package in PACKAGES for name in modules_of(package) if not name.endswith("__main__")]

    done = python("-c", IMPORT_EACH_ALONE, HEAVY, stdin="\n".join(modules))

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], done.stderr


@pytest.mark.parametrize("module", [name for name, _ in pure_modules()])
def test_pure_code_asks_neither_clock_nor_chance_nor_environment(module: str) -> None:
    """Time, chance and settings are arguments of the ground; a call to fetch them would hide there."""
    tree = ast.parse(dict(pure_modules())[module].read_text(encoding="utf-8"))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }

    assert imported.isdisjoint({"os", "random", "secrets", "time"})


@pytest.mark.parametrize(
    ("program", "never"),
    [
        (
            "hengectl.cli",
            {"aiohttp", "hengd", "henge_agent", "jsonschema", "jsonschema_rs", "lmdb", "msgspec"},
        ),
        ("henge_agent.cli", {"hengd", "hengectl", "jsonschema", "jsonschema_rs", "lmdb", "msgspec", "uvloop"}),
        ("hengd.cli", {"hengectl", "henge_agent"}),
    ],
)
def test_program_never_loads_what_it_must_do_without(program: str, never: set[str]) -> None:
    """What is imported in passing counts too, which a contract over our own imports cannot see."""
    assert loaded_by(program).isdisjoint(never)
