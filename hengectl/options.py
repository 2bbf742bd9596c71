"""Arguments and options that several commands share: what they accept, and what TAB offers for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from henge_protocol.arguments import FILE
from henge_protocol.errors import HengeError
from henge_protocol.model import check_name, check_secret_name
from henge_protocol.quantity import format_duration, parse_duration_s
from hengectl.kinds import DEVICE, OBJECT_KINDS, SECRET, Kind, Ref, find_kind, parse_ref

F = TypeVar("F", bound=Callable[..., Any])

MAX_DURATION_S: Final = 366 * 86400


class Duration(click.ParamType[int]):
    """``90s``, ``15m``, ``2h``, ``1d12h``: seconds, more than zero and at most a year or what is said."""

    name = "duration"

    def __init__(self, longest_s: int = MAX_DURATION_S) -> None:
        self.longest_s = longest_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        seconds = _checked(lambda: parse_duration_s(value), param, ctx)
        if not 0 < seconds <= self.longest_s:
            self.fail(f"{value!r} is not between 1s and {format_duration(self.longest_s)}", param, ctx)
        return seconds


class Name(click.ParamType[str]):
    """The name of a device, schema or context."""

    name = "name"

    def __init__(self, kind: Kind | None = None) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        word, slash, rest = str(value).partition("/")
        if slash and self.kind is not None and find_kind(word) is self.kind:
            value = rest  # device/lamp-1 where lamp-1 is enough
        return _checked(lambda: check_name(value), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from hengectl.offering import names

        return names(ctx, (self.kind,), incomplete, prefixed=False) if self.kind is not None else []


class RefType(click.ParamType[Ref]):
    """``KIND/NAME``."""

    name = "kind/name"

    def __init__(self, of: tuple[Kind, ...] = OBJECT_KINDS) -> None:
        self.of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ref:
        return value if isinstance(value, Ref) else _checked(lambda: parse_ref(value, of=self.of), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from hengectl.offering import names

        return names(ctx, self.of, incomplete, prefixed=True)


class SecretName(click.ParamType[str]):
    """``wifi/home``."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if "=" in value:  # somebody gives the value, too: it must not be repeated
            self.fail("a name is expected alone; the value is asked for, or read with --from-file", param, ctx)
        return _checked(lambda: check_secret_name(value.removeprefix("secret/")), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from hengectl.offering import names

        return names(ctx, (SECRET,), incomplete, prefixed=False)


class Pattern(click.ParamType[str]):
    """A name, or a pattern with ``*`` and ``?``."""

    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[a-z0-9*?-]{1,63}", value):
            self.fail(f"{value!r} is not a name, nor a pattern such as lamp-*", param, ctx)
        return str(value)


class WhatType(click.ParamType[str]):
    """A kind, a name, or ``kind/name``; TAB knows all three."""

    name = "what"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from hengectl.offering import kinds_and_names

        return kinds_and_names(ctx, ctx.params.get("what") or (), incomplete)


DEVICE_NAME: Final = Name(DEVICE)
SECRET_NAME: Final = SecretName()
WHAT: Final = WhatType()
DURATION: Final = Duration()


def output_option(*forms: str) -> Callable[[F], F]:
    """``-o``: the forms beside the table."""
    return click.option("-o", "--output", "form", type=click.Choice(forms), default=None, help="Instead of a table.")


def selector_option(function: F) -> F:
    """``-l SELECTOR``."""
    return click.option(
        "-l",
        "--selector",
        metavar="SELECTOR",
        is_eager=True,  # what an argument means may depend on it
        callback=lambda ctx, param, value: _selector(value, param, ctx),
        help="Only those with these labels, such as room=kitchen,kind!=spare.",
    )(function)


def labels_option(function: F) -> F:
    """``-l k=v``, as often as there are labels."""
    return click.option(
        "-l",
        "--label",
        "labels",
        metavar="KEY=VALUE",
        multiple=True,
        callback=lambda ctx, param, value: _labels(value, param, ctx),
        help="Give the device this label; may be repeated.",
    )(function)


def message_option(function: F) -> F:
    """``-m MESSAGE``."""
    return click.option("-m", "--message", metavar="TEXT", default="", help="Keep this in the history.")(function)


def dry_run_option(function: F) -> F:
    """``--dry-run``."""
    return click.option("--dry-run", is_flag=True, help="Let the daemon check everything and change nothing.")(function)


def all_at_once_option(function: F) -> F:
    """``--all-at-once``."""
    return click.option(
        "--all-at-once", is_flag=True, help="Although it changes much of the fleet, or what may cut devices off."
    )(function)


def take_over_option(function: F) -> F:
    """``--take-over``."""
    return click.option(
        "--take-over", is_flag=True, help="Also what belongs to an apply-set, which then has it no more."
    )(function)


def files_option(function: F) -> F:
    """``-f FILE``, as often as there are files."""
    return click.option(
        "-f",
        "--filename",
        "names",
        type=FILE,
        metavar="FILE|DIR|-",
        multiple=True,
        help="YAML or JSON; may be repeated.",
    )(function)


def kustomize_option(function: F) -> F:
    """``-k DIR``."""
    return click.option(
        "-k", "--kustomize", "folder", type=FILE, metavar="DIR", help="What kustomize makes of this folder."
    )(function)


def set_options(function: F) -> F:
    """``--set`` and ``--prune``: for which apply-set."""
    prune = click.option("--prune", is_flag=True, help="Delete what belongs to the set and is not in the files.")
    return set_option(prune(function))


def set_option(function: F) -> F:
    """``--set``: for which apply-set."""
    return click.option(
        "--set",
        "apply_set",
        metavar="NAME",
        type=Name(),
        default=None,
        help="The objects belong to this apply-set; others need --take-over to change them.",
    )(function)


def if_revision_option(function: F) -> F:
    """``--if-revision N``."""
    return click.option(
        "--if-revision",
        type=click.IntRange(0),
        default=None,
        metavar="REVISION",
        help="Only if nothing was changed since this revision.",
    )(function)


def yes_option(function: F) -> F:
    """``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def wait_options(default_s: int) -> Callable[[F], F]:
    """``--wait`` and ``--timeout``."""

    def decorate(function: F) -> F:
        timeout = click.option(
            "--timeout",
            "timeout_s",
            type=DURATION,
            default=default_s,
            help=f"How long to wait; {default_s}s if not given.",
        )
        return click.option("--wait", is_flag=True, help="Wait until the devices run it.")(timeout(function))

    return decorate


def _selector(value: str | None, param: click.Parameter, ctx: click.Context) -> str:
    if value is not None:
        from henge_protocol.selector import parse_selector  # 6 ms of regular expressions

        _checked(lambda: parse_selector(value), param, ctx)
    return value or ""


def _labels(values: Sequence[str], param: click.Parameter, ctx: click.Context) -> dict[str, str]:
    labels: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE", ctx, param)
        if key in labels:
            raise click.BadParameter(f"the label {key!r} is given twice", ctx, param)
        labels[key] = text
    if labels:
        from henge_protocol.selector import check_labels

        _checked(lambda: check_labels(labels), param, ctx)
    return labels


T = TypeVar("T")


def _checked(read: Callable[[], T], param: click.Parameter | None, ctx: click.Context | None) -> T:
    """What an argument means; a value that is not understood is a usage error."""
    try:
        return read()
    except HengeError as error:
        hint = f" ({error.cure})" if error.cure else ""
        raise click.BadParameter(f"{error.message}{hint}", ctx, param) from None
