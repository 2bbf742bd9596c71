"""``edit``: one object in an editor; what does not fit comes back with the reasons on top, and no text is lost."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from henge_protocol.errors import Conflict, HengeError, Invalid, Malformed, Stale, TooLarge
from henge_protocol.model import API_VERSION
from hengectl.client import Reply
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import Object, Ref, name_of
from hengectl.options import RefType, all_at_once_option, message_option, take_over_option
from hengectl.refusal import lines_of
from hengectl.render import as_yaml, safe

OURS: Final = "#: "
"""Begins every line that ``edit`` writes for the person; a person's own comments stay."""
CHANCES: Final = (Invalid, Malformed, TooLarge, Conflict, Stale)
"""Refusals that other text may mend."""
UNATTENDED_TRIES: Final = 5
"""How often an editor is opened that nobody sits at: one that writes what is refused would do so for ever."""


@click.command("edit", cls=Command, writes=True, short_help="Change one device, group or schema in an editor.")
@click.argument("target", metavar="KIND/NAME", type=RefType())
@all_at_once_option
@take_over_option
@message_option
@with_invocation
def edit_command(invocation: Invocation, target: Ref, all_at_once: bool, take_over: bool, message: str) -> None:
    """Open an object as YAML in $VISUAL or $EDITOR, and make it so.

    What is refused is opened again with the reasons on top. Close the editor without saving to give up; what you wrote
    stays in a file, whose name is told.
    """
    read = invocation.client.get(target.path)
    if not take_over:
        _refuse_managed(target, read.json())
    draft = _Draft.of(target, read)
    try:
        _edit(invocation, draft, {"all_at_once": all_at_once, "take_over": take_over, "message": message})
    except BaseException:
        if draft.written:
            word = " --take-over" if take_over else ""
            invocation.note(f"What you wrote is in {draft.path}. Make it so: hengectl apply -f {draft.path}{word}")
        else:
            draft.forget()
        raise
    draft.forget()


@dataclass(slots=True)
class _Draft:
    """The text in its file, private to the person; ``etag`` is the version that it is made from."""

    target: Ref
    path: Path
    etag: str
    original: str
    """What the daemon has, as text."""
    shown: str = ""
    """What was in the file when the editor was opened."""

    @staticmethod
    def of(target: Ref, reply: Reply) -> _Draft:
        handle, name = tempfile.mkstemp(prefix=f"hengectl-edit-{target.kind.singular}-{target.name}-", suffix=".yaml")
        os.close(handle)
        object_ = reply.json()
        return _Draft(target, Path(name), reply.etag, _text_of(object_))

    @property
    def written(self) -> bool:
        """Whether the file holds something that a person has written."""
        return bool(self.said) and self.said != self.original

    @property
    def said(self) -> str:
        """The text without the lines that are ours; empty if there is nothing but comments."""
        lines = self._file().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(OURS.rstrip())]
        return "".join(kept) if any(line.strip() and not line.lstrip().startswith("#") for line in kept) else ""

    @property
    def saved(self) -> bool:
        """Whether the person has saved another text than was shown."""
        return self._file() != self.shown

    def open(self, command: str, remarks: list[str]) -> None:
        """Let the person work on the text below these remarks; ``Invalid`` ``bad_usage`` if that cannot be."""
        self.shown = "".join(f"{OURS}{line}\n" for line in remarks) + (self.said or self.original)
        self.path.write_text(self.shown, "utf-8", errors="surrogateescape")  # as it was read
        try:
            ended = subprocess.run([*shlex.split(command), str(self.path)], check=False).returncode
        except (OSError, ValueError) as error:
            cure = "set EDITOR to the editor's command, such as nano"
            raise Invalid("bad_usage", f"the editor {command!r} cannot be started ({error})", cure=cure) from None
        if ended != 0:
            raise Invalid("bad_usage", f"the editor {command!r} ended with {ended}; nothing was changed")

    def object(self) -> dict[str, Any]:
        """The one object of the text; refusals are placed in it."""
        from hengectl import manifest  # YAML takes 15 ms to import

        read = manifest.read([str(self.path)])
        found = read.objects[0]
        if len(read.objects) != 1 or (found["kind"], name_of(found)) != (self.target.kind.title, self.target.name):
            raise Invalid(
                "bad_object", f"the file should hold {self.target} and nothing else", cure="leave its name as it was"
            )
        return found

    def place(self, error: HengeError) -> HengeError:
        """The daemon's refusal with the places of its problems in the text."""
        from hengectl import manifest

        manifest.read([str(self.path)]).add_places(error)
        return error

    def forget(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def _file(self) -> str:
        """What is in the file; an editor that has removed it leaves nothing."""
        try:
            return self.path.read_text("utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return ""


def _refuse_managed(target: Ref, object_: Object) -> None:
    """Nobody is to write what no text can make accepted."""
    apply_set = object_["metadata"].get("set")
    if apply_set:
        raise Conflict(
            "managed",
            f"{target} belongs to the apply-set {safe(apply_set)}, and an edit is made by hand",
            cure=f"change it in its files; to have it otherwise from now on: hengectl edit {target} --take-over",
        )


def _edit(invocation: Invocation, draft: _Draft, query: Mapping[str, Any]) -> None:
    command = _editor(invocation)
    remarks = [f"{draft.target}: save and close to make it so; close without saving to leave it as it is."]
    refusal: HengeError | None = None
    for opened in itertools.count():
        if refusal is not None and opened == UNATTENDED_TRIES and not invocation.interactive:
            raise refusal
        draft.open(command, remarks)
        if refusal is not None and not draft.saved:
            raise refusal
        if draft.said in ("", draft.original):
            invocation.note(f"Nothing was changed in {draft.target}.")
            return
        try:
            after = invocation.client.put(draft.target.path, draft.object(), if_match=draft.etag, **query)
        except CHANCES as error:
            if error.code == "managed":  # no other text mends that
                raise
            refusal = _placed(draft, error)
            remarks = lines_of(refusal, writes=True, outcome="nothing")
            if isinstance(error, Stale):
                remarks += _catch_up(invocation, draft)
            continue
        changed = "unchanged" if after.etag == draft.etag else f"configured (r{after.revision})"
        invocation.paper.say(f"{draft.target} {changed}")
        return


def _editor(invocation: Invocation) -> str:
    """The person's editor; without a terminal only one that was chosen, which may be a program."""
    chosen = invocation.environ.get("VISUAL", "").strip() or invocation.environ.get("EDITOR", "").strip()
    if not chosen and not invocation.interactive:
        cure = "set EDITOR to a command that changes the file, or write a file and: hengectl apply -f FILE"
        raise Invalid("bad_usage", "edit opens an editor and nobody sits at a terminal", cure=cure)
    return chosen or "vi"


def _placed(draft: _Draft, error: HengeError) -> HengeError:
    return draft.place(error) if error.problems and "status" in error.extra else error


def _catch_up(invocation: Invocation, draft: _Draft) -> list[str]:
    """Take what is there now as the version that is replaced; the person sees it."""
    reply = invocation.client.get(draft.target.path)
    draft.etag, draft.original = reply.etag, _text_of(reply.json())
    return ["It is now as follows; what you save takes its place:", *draft.original.splitlines()]


def _text_of(object_: Object) -> str:
    """What a person may say of an object, as YAML."""
    metadata = {
        name: object_["metadata"][name] for name in ("name", "labels", "annotations") if name in object_["metadata"]
    }
    return as_yaml({"apiVersion": API_VERSION, "kind": object_["kind"], "metadata": metadata, "spec": object_["spec"]})
