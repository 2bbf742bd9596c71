"""Man pages: one for every command of every program, saying what ``--help`` says, rendered without a warning."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from contrib import manpages
from hengd.cli import cli as hengd
from henge_agent.cli import cli as henge_agent
from tests.hengectl.test_cli import commands

ROOT = Path(__file__).parents[1]


def plain(page: str) -> str:
    """A page's text without macros and escapes, in one line."""
    bare = re.sub(r"^\.[A-Za-z]+ ?", "", page, flags=re.MULTILINE).replace("\\&", "").replace("\\-", "-")
    for escape, character in {"\\(aq": "'", "\\(ga": "`", "\\(ha": "^", "\\(ti": "~", "\\e": "\\"}.items():
        bare = bare.replace(escape, character)
    return " ".join(re.sub(r"\\f[BRI]", "", bare).split())


def words_of(program: click.Command, name: str) -> list[str]:
    """The words of every command of a program, that of the program itself first."""
    below = program.commands if isinstance(program, click.Group) else {}
    return [name, *(words for one, command in below.items() for words in words_of(command, f"{name} {one}"))]


def test_every_command_has_a_page_and_nothing_else_has() -> None:
    groups = {f"hengectl {words.split()[0]}" for words in commands() if " " in words}
    expected = {"hengectl", *groups, *(f"hengectl {words}" for words in commands())}
    expected |= {*words_of(hengd, "hengd"), *words_of(henge_agent, "henge-agent")}

    assert set(manpages.pages()) == {f"{'-'.join(words.split())}.1" for words in expected}


@pytest.mark.parametrize("ctx", list(manpages.all_commands()), ids=lambda ctx: ctx.command_path)
def test_a_page_says_what_help_says(ctx: click.Context) -> None:
    page = plain(manpages.page(ctx))
    options = [one for one in ctx.command.get_params(ctx) if isinstance(one, click.Option) and not one.hidden]

    assert f" SYNOPSIS {ctx.command_path} " in page
    assert " ".join((ctx.command.help or "").replace("\b", " ").split()) in page
    assert all(name in page for option in options for name in option.opts)
    assert all(" ".join((option.help or "").split()) in page for option in options)


def test_the_page_of_hengectl_lists_its_exit_codes() -> None:
    page = plain(manpages.pages()["hengectl.1"])

    assert [int(code) for code, _ in manpages.exit_codes()] == [*range(10), 130]
    assert "130 interrupted with Ctrl-C" in page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, as ``make man`` writes them."""
    made = tmp_path_factory.mktemp("man")
    assert manpages.main([str(made)]) == 0
    return made


@pytest.mark.parametrize(
    "tool",
    [
        ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z"],
        ["mandoc", "-T", "lint", "-W", "warning"],
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"],
    ],
    ids=lambda tool: tool[0],
)
def test_pages_render_without_a_warning(folder: Path, tool: list[str]) -> None:
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not here")
    files = [str(path) for path in sorted(folder.iterdir())]
    ran = subprocess.run([*tool, *files], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_pages_written_anew_leave_none_of_a_command_that_is_gone(folder: Path) -> None:
    (folder / "hengectl-gone.1").write_text("old")
    manpages.main([str(folder)])

    assert not (folder / "hengectl-gone.1").exists()


def test_the_wheel_takes_the_pages_from_where_they_are_written() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")

    assert ROOT / config["options.data_files"]["share/man/man1"] == manpages.FOLDER / "*.1"
    assert re.search(r"^dist:.* man ", (ROOT / "Makefile").read_text(), re.MULTILINE)
