"""Man pages of all programs, made of their commands: ``make man`` writes them, ``make dist`` packs them.

They are built and never kept in the repository, so they cannot say anything else than ``--help`` does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from hengd.cli import cli as hengd
from henge_agent.cli import cli as henge_agent
from henge_protocol import __version__
from hengectl.cli import hengectl

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "man"
"""Where the wheel takes them from (``setup.cfg``)."""
SECTION: Final = "1"
PROGRAMS: Final[dict[str, click.Command]] = {"hengd": hengd, "hengectl": hengectl, "henge-agent": henge_agent}
ABOUT: Final = {
    "hengd": "the daemon that keeps what devices should run",
    "hengectl": "see and change what devices should run",
    "henge-agent": "receive a device's configuration and apply it",
}
ELSEWHERE: Final = {
    "hengd": "docs/operations.md, docs/settings.md",
    "hengectl": "docs/hengectl.md",
    "henge-agent": "docs/protocol.md",
}
_ESCAPES: Final = str.maketrans({"\\": "\\e", "-": "\\-", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga", "'": "\\(aq"})
_UNWRAPPED: Final = "\b"
"""Click's sign before a paragraph whose lines stay as they are."""


def main(arguments: Sequence[str]) -> int:
    """Write every page into a folder, in place of those that stand there."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"*.{SECTION}"):
        old.unlink()
    made = pages()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"{len(made)} man pages in {folder}; read one: man -l {folder / 'hengectl-set.1'}")
    return 0


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    return {f"{'-'.join(ctx.command_path.split())}.{SECTION}": page(ctx) for ctx in all_commands()}


def all_commands() -> Iterator[click.Context]:
    """Every program, and every command of each, as a context."""
    for name, program in PROGRAMS.items():
        yield from _below(_context(program, name, None))


def _below(ctx: click.Context) -> Iterator[click.Context]:
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name, command in _commands(ctx):
            yield from _below(_context(command, name, ctx))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _commands(ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    assert isinstance(ctx.command, click.Group)
    for name in ctx.command.list_commands(ctx):
        command = ctx.command.get_command(ctx, name)
        if command is not None and not command.hidden:
            yield name, command


def page(ctx: click.Context) -> str:
    """One page in the macros of man(7)."""
    title, root = "-".join(ctx.command_path.split()), ctx.find_root().info_name or ""
    about = ABOUT[title] if title in ABOUT else ctx.command.get_short_help_str(limit=200).rstrip(".")
    lines = [
        f'.TH {_text(title.upper())} {SECTION} "" "henge {__version__}" "henge"',
        ".SH NAME", f"{_text(title)} \\- {_text(about[:1].lower() + about[1:])}",
        ".SH SYNOPSIS", f".B {_text(ctx.command_path)}", _text(" ".join(ctx.command.collect_usage_pieces(ctx))),
        ".SH DESCRIPTION", *_prose(ctx.command.help or ""),
    ]  # fmt: skip
    if isinstance(ctx.command, click.Group):
        lines += [".SH COMMANDS", *_listed((name, one.get_short_help_str(limit=200)) for name, one in _commands(ctx))]
    lines += [".SH OPTIONS", *_listed(_options(ctx))]
    if root == "hengectl" and ctx.parent is not None:
        lines += [".PP", "The options of \\fBhengectl\\fR(1) are taken here, too."]
    if title == "hengectl":
        lines += [".SH EXIT STATUS", *_listed(exit_codes())]
    return "\n".join([*lines, *_see_also(ctx, root)]) + "\n"


def exit_codes() -> list[tuple[str, str]]:
    """The codes of hengectl, from the one table that describes them."""
    text = (ROOT / "docs" / "hengectl.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    return re.findall(r"^\| ([0-9]+) \| (.+) \|$", text, re.MULTILINE)


def _options(ctx: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in ctx.command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield record


def _see_also(ctx: click.Context, root: str) -> list[str]:
    above = ["-".join(ctx.parent.command_path.split())] if ctx.parent is not None else list(PROGRAMS)
    below = [f"{'-'.join(ctx.command_path.split())}-{name}" for name, _ in _commands(ctx)] if _is_group(ctx) else []
    names = [name for name in [*above, *below] if name != ctx.command_path]
    said = ", ".join(f"\\fB{_text(name)}\\fR({SECTION})" for name in names)
    return [".SH SEE ALSO", said, ".PP", _text(f"{ELSEWHERE[root]} in henge's sources say more.")]


def _is_group(ctx: click.Context) -> bool:
    return isinstance(ctx.command, click.Group)


def _listed(entries: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, meaning in entries:
        yield from (".TP", f"\\fB{_text(name)}\\fR", _text(" ".join(meaning.split())) or "\\&")


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; those that click does not wrap stay as they are typed."""
    for paragraph in re.split(r"\n\s*\n", text.replace("\f", "").strip()):
        lines = paragraph.splitlines()
        yield ".PP"
        if lines and lines[0].strip() == _UNWRAPPED:
            yield from (".nf", *(_text(line.strip()) for line in lines[1:]), ".fi")
        else:
            yield from (_text(line.strip()) for line in lines)


def _text(text: str) -> str:
    """Text that troff takes for nothing but text."""
    escaped = text.translate(_ESCAPES)
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
