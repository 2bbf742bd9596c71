"""``audit``: who did what, and whether the chain of records is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from henge_protocol.arguments import FILE
from henge_protocol.audit import Link, parse_link, verify
from henge_protocol.errors import Conflict, HengeError, Invalid, Malformed, NotFound
from henge_protocol.keyfiles import read_once
from henge_protocol.model import MAX_LISTED
from hengectl.invocation import Command, Group, Invocation, with_invocation
from hengectl.kinds import Object
from hengectl.listing import tell_list
from hengectl.options import output_option
from hengectl.render import Table, age, plural, safe

AT_ONCE: Final = MAX_LISTED
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Some ten times what a daemon keeps."""


@click.group("audit", cls=Group, short_help="Who did what; verify that no record was changed.")
def audit_command() -> None:
    """Who changed, let in and threw out what: a chain in which each record carries the digest of the one before."""


@audit_command.command("list", cls=Command, short_help="Show who did what.")
@click.option("--limit", type=click.IntRange(1, AT_ONCE), default=20, help="How many; 20 if not given.")
@click.option("--since", type=click.IntRange(0), default=None, metavar="NUMBER", help="The first after this record.")
@click.option("--all", "everything", is_flag=True, help="All that are kept, with the ends of the chain (-o json).")
@output_option("json", "yaml", "wide", "name")
@with_invocation
def audit_list(invocation: Invocation, limit: int, since: int | None, everything: bool, form: str | None) -> None:
    """Show the newest records, the oldest of them first."""
    if everything:
        answer = _whole(invocation)
    else:
        answer = invocation.client.get("/v1/audit", since=since, limit=limit).json()
    items = answer["items"]
    tell_list(
        invocation, items, form,
        name=lambda item: f"audit/{item['number']}",
        rows=lambda: invocation.paper.table(_table(items, now=invocation.now(), wide=form == "wide")),
        nothing="There are no such records.",
        data=answer if everything else None,
    )  # fmt: skip


@audit_command.command("verify", cls=Command, short_help="Compute the chain anew.")
@click.option(
    "-f", "--filename", "file", type=FILE, metavar="FILE", default=None,
    help="A file from 'audit list --all -o json', instead of asking the daemon.",
)  # fmt: skip
@click.option("--known", default=None, metavar="NUMBER:SHA-256", help="The end that an earlier verify printed.")
@with_invocation
def audit_verify(invocation: Invocation, file: str | None, known: str | None) -> None:
    """Compute every record's digest here and compare the chain, from the oldest record kept to the newest.

    Note the end that it prints: with --known a later verify proves that nothing up to there was written anew.
    """
    link = _known(known)
    answer = _whole(invocation) if file is None else _read(Path(file))
    try:
        anchor, head = (Link(int(answer[end]["number"]), str(answer[end]["digest"])) for end in ("anchor", "head"))
        verdict = verify(answer["items"], anchor, head=head, known=link)
    except (HengeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid("bad_object", f"these are no audit records ({type(error).__name__})") from None
    if verdict.fault:
        raise Conflict(
            "audit_broken", f"the audit chain is broken: {verdict.fault}",
            cure="compare with a backup: somebody wrote into the store beside the daemon, or the disk fails",
        )  # fmt: skip
    invocation.paper.say(f"{plural(verdict.count, 'record')} verified, the end is {verdict.last}")


def _known(text: str | None) -> Link | None:
    try:
        return parse_link(text) if text else None
    except Malformed as error:
        cure = "give the end that an earlier 'hengectl audit verify' printed"
        raise Invalid("bad_usage", f"--known: {error.message}", cure=cure) from None


def _whole(invocation: Invocation) -> dict[str, Any]:
    """Every record that is kept, page by page; what is written meanwhile moves the end along."""
    answer: dict[str, Any] = invocation.client.get("/v1/audit", since=0, limit=AT_ONCE).json()
    items = answer["items"]
    while items and items[-1]["number"] < answer["head"]["number"]:
        page = invocation.client.get("/v1/audit", since=items[-1]["number"], limit=AT_ONCE).json()
        if not page["items"]:
            break
        items += page["items"]
        answer["head"] = page["head"]
    return answer


def _read(file: Path) -> dict[str, Any]:
    cure = f"make such a file: hengectl audit list --all -o json > {file}"
    try:
        answer = json.loads(read_once(file, limit_bytes=MAX_FILE_BYTES)[0])
    except NotFound as error:
        raise NotFound(error.code, error.message, cure=cure) from None
    except (ValueError, RecursionError):
        raise Invalid("bad_file", f"{file} is not JSON", cure=cure) from None
    if not isinstance(answer, dict):
        raise Invalid("bad_file", f"{file} is not from 'hengectl audit list --all -o json'", cure=cure)
    return answer


def _table(items: list[Object], *, now: float, wide: bool) -> Table:
    heads = ["NUMBER", "AGE", "WHO", "WHAT", "OBJECT", "REVISION", *(["FROM", "PREVIOUS"] if wide else [])]
    return Table(heads, [_row(item, now=now, wide=wide) for item in items])


def _row(item: Mapping[str, Any], *, now: float, wide: bool) -> list[str]:
    more = [safe(item.get("origin", "")), str(item.get("previous", ""))[:12]] if wide else []
    revision = str(item.get("revision") or "")
    said = [safe(item.get(name, "")) for name in ("who", "what", "object")]
    return [str(item.get("number")), age(item.get("time"), now=now), *said, revision, *more]
