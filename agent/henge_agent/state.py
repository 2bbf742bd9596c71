"""What the agent keeps: who it is, what it runs, what it has still to say. One private folder, one process.

    lock                 held while an agent works here
    membership.json      fleet, device, authorities, addresses, and which of the two identity files counts
    identity-a.pem, -b   private key and certificate in one file, so that they cannot part
    joining.pem          the key of a join that is not finished, kept so that a lost answer can be asked for again
    progress.json        what runs, what ran before, what is being applied, the report without a receipt
    documents/DIGEST     documents by digest, exact bytes
    originals/NAME       what stood in an output's place before the agent first wrote there

Each file is replaced whole and durably; a file is written before the file that names it and removed after it is
named no more. So a cut between any two operations leaves the state before or after, never something else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from henge_agent.records import (
    OTHER_SLOT,
    Membership,
    Original,
    Progress,
    Slot,
    Version,
    membership_fields,
    progress_fields,
    read_membership_fields,
    read_progress_fields,
)
from henge_protocol.errors import Conflict, HengeError, Invalid, NotFound, TooLarge
from henge_protocol.header import WireError
from henge_protocol.keyfiles import (
    DISK,
    Files,
    file_refusal,
    make_private_dir,
    read_private,
    remove_file,
    replace_file,
    write_private,
)
from henge_protocol.model import digest_of, is_digest
from henge_protocol.strictjson import parse
from henge_protocol.wire import MAX_FRAME_BYTES

MAX_ORIGINAL_BYTES: Final = 4 * 1024 * 1024
"""A larger file in an output's place is somebody's mistake, not a configuration."""
REJOIN: Final = "to come back it needs a new token: henge-agent join --replace --token-file FILE"
"""What a person does about a device that the daemon lets in no more."""
FOREIGN: Final = "unsupported_protocol"
"""What is kept of a daemon that shares no protocol version with this agent."""

_ABSENT: Final = b"absent\n"
_PRESENT: Final = b"present"
_PRESENT_WITH: Final = re.compile(rb"present ([0-7]{1,4}) ([0-9]{1,10}) ([0-9]{1,10})")
_MAX_HEAD_BYTES: Final = 64

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class State:
    """The state folder, opened by one process. Methods block on the disk; ``close`` gives the lock back."""

    def __init__(self, folder: Path, *, files: Files = DISK) -> None:
        """Open or make the folder.

        Raises ``Conflict already_running``, ``Denied not_private``, ``Invalid state_damaged``, ``Invalid bad_file``.
        """
        self.folder = folder
        self._files = files
        self._membership_turn = threading.RLock()
        make_private_dir(folder, files=files)
        self._lock_fd = _locked(folder)
        try:
            for inner in (self._documents, self._originals):
                make_private_dir(inner, files=files)
            self.membership = read_membership(folder)
            self.progress = self._sound_progress()
            self._sweep()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock back; the object is of no further use."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    @property
    def _documents(self) -> Path:
        return self.folder / "documents"

    @property
    def _originals(self) -> Path:
        return self.folder / "originals"

    # ---- who we are

    def identity_file(self, slot: Slot) -> Path:
        """The file with private key and certificate of this slot."""
        return self.folder / f"identity-{slot}.pem"

    def free_slot(self) -> Slot:
        """The slot that does not count."""
        return OTHER_SLOT[self.membership.slot] if self.membership else "a"

    def write_identity(self, slot: Slot, pem: bytes) -> None:
        """Keep key and certificate in the slot; it counts only once the membership says so."""
        if self.membership and slot == self.membership.slot:
            raise LookupError("the identity that counts is never overwritten")
        write_private(self.identity_file(slot), pem, files=self._files)

    def keep_membership(self, membership: Membership) -> None:
        """Make ``membership`` count, durably."""
        with self._membership_turn:
            self._write_json("membership.json", membership_fields(membership))
            self.membership = membership

    def update_membership(self, change: Callable[[Membership], Membership]) -> None:
        """Make what ``change`` makes of the membership count, durably; threads that change it take turns.

        Raises ``StorageFull storage_full`` or ``Invalid bad_file``; then the membership is as it was.
        """
        with self._membership_turn:
            if self.membership is None:
                raise LookupError("there is no membership to change before joining")
            changed = change(self.membership)
            if changed != self.membership:
                self.keep_membership(changed)

    def joining_key(self, purpose: str) -> bytes | None:
        """The key of an unfinished join for the same purpose (a token's id), if there is one."""
        try:
            name, _, key_pem = read_private(self.folder / "joining.pem").partition(b"\n")
        except NotFound:
            return None
        return key_pem if name.decode("utf-8", "replace") == f"# {purpose}" else None

    def keep_joining_key(self, purpose: str, key_pem: bytes) -> None:
        """Keep the key so that the same request can be repeated after a cut."""
        write_private(self.folder / "joining.pem", f"# {purpose}\n".encode() + key_pem, files=self._files)

    def drop_joining_key(self) -> None:
        """The join is finished, or its key is of no use."""
        remove_file(self.folder / "joining.pem", files=self._files)

    # ---- what we run

    def document_file(self, digest: str) -> Path:
        """Where the document with this digest lies."""
        return self._documents / digest

    def document(self, digest: str) -> bytes | None:
        """The document's exact bytes; None when it is absent or damaged."""
        try:
            data = read_private(self.document_file(digest), limit_bytes=MAX_FRAME_BYTES)
        except (NotFound, TooLarge):
            return None
        return data if digest_of(data) == digest else None

    def keep_document(self, document: bytes) -> None:
        """Keep a document under its digest; it stays while the progress names it."""
        digest = digest_of(document)
        if self.document(digest) is None:
            write_private(self.document_file(digest), document, files=self._files)

    def drop_document(self, digest: str) -> None:
        """Forget a document that was kept for a look; it stays if the progress names it."""
        if digest not in self.progress.digests:
            self._forget(self.document_file(digest))

    def keep_progress(self, progress: Progress) -> None:
        """Make ``progress`` count, durably, then forget documents that it names no more.

        Raises ``StorageFull storage_full`` or ``Invalid bad_file``; then the progress is as it was.
        """
        self._write_json("progress.json", progress_fields(progress))
        gone, self.progress = self.progress.digests - progress.digests, progress
        for digest in gone:
            self._forget(self.document_file(digest))

    def forget_revisions(self) -> None:
        """Keep the documents, but neither which revisions brought them nor what is still to be said about them.

        Revisions count within one daemon's history; in another's they would look like ones yet to come.
        """
        old = self.progress
        named = {
            name: replace(version, epoch="", revision=0)
            for name in ("current", "previous", "staged", "trial")
            if (version := getattr(old, name)) is not None
        }
        self.keep_progress(replace(old, report=None, **named))

    def keep_original(self, path: Path, original: Original) -> None:
        """Remember what stood at an output's place before the agent first wrote there."""
        write_private(self._original_file(path), _original_data(original), files=self._files)

    def knows_original(self, path: Path) -> bool:
        """Whether ``keep_original`` was called for this path."""
        return self._original_file(path).exists()

    def original(self, path: Path) -> Original:
        """What stood at an output's place; without content when nothing did, or the agent never wrote there."""
        try:
            data = read_private(self._original_file(path), limit_bytes=MAX_ORIGINAL_BYTES + _MAX_HEAD_BYTES)
        except NotFound:
            return Original(None)
        return _read_original(data)

    def _original_file(self, path: Path) -> Path:
        return self._originals / hashlib.sha256(os.fsencode(path)).hexdigest()

    def _write_json(self, name: str, fields: Mapping[str, object]) -> None:
        data = json.dumps({"version": 1, **fields}, ensure_ascii=False, indent=1).encode() + b"\n"
        replace_file(self.folder / name, data, files=self._files)

    def _sound_progress(self) -> Progress:
        """The progress whose documents are all there; damage costs a delivery, never a start."""
        try:
            progress = read_progress(self.folder)
        except HengeError as error:
            log.warning("%s; the daemon will send the document again", error)
            return Progress()
        current, previous, trial = (
            self._sound(version) for version in (progress.current, progress.previous, progress.trial)
        )
        return replace(progress, current=current, previous=previous, trial=trial)

    def _sound(self, version: Version | None) -> Version | None:
        if version is None or self.document(version.digest) is not None:
            return version
        log.warning("document %s is missing or damaged; the daemon will send it again", version.digest[:12])
        return None

    def _sweep(self) -> None:
        """Remove what a cut left: temporary files, and documents that nothing names."""
        for folder in (self.folder, self._documents, self._originals):
            for left in folder.glob(".*.new"):
                self._forget(left)
        for path in self._documents.iterdir():
            if is_digest(path.name) and path.name not in self.progress.digests:
                self._forget(path)

    def _forget(self, path: Path) -> None:
        """Remove what nothing names; what cannot be removed now is left to the sweep at the next start."""
        try:
            remove_file(path, files=self._files)
        except HengeError as error:
            log.warning("a file of no more use stays: %s", error)


def _original_data(original: Original) -> bytes:
    """``absent``, or ``present``, mode in octal, user and group, in a line before the content."""
    if original.content is None:
        return _ABSENT
    said = (
        "" if original.mode is None or original.owner is None else " {:o} {} {}".format(original.mode, *original.owner)
    )
    return _PRESENT + said.encode() + b"\n" + original.content


def _read_original(data: bytes) -> Original:
    head, _, content = data.partition(b"\n")
    if not head.startswith(_PRESENT):
        return Original(None)
    said = _PRESENT_WITH.fullmatch(head)
    if said is None:  # an earlier version kept the content alone
        return Original(content)
    return Original(content, int(said[1], 8), (int(said[2]), int(said[3])))


def set_aside(folder: Path) -> None:
    """Rename a damaged membership, so that the device can join anew and nothing is lost that a person may want."""
    (folder / "membership.json").replace(folder / "membership.json.damaged")


def is_running(folder: Path) -> bool:
    """Whether an agent works on this folder now."""
    try:
        os.close(_locked(folder))
    except Conflict:
        return True
    except HengeError:
        return False
    return False


def read_membership(folder: Path) -> Membership | None:
    """The membership in a state folder, None before joining; needs no lock.

    Raises ``Invalid state_damaged`` or ``Denied not_private``, also when the identity that counts cannot be read.
    """
    fields = _read_json(folder / "membership.json")
    if fields is None:
        return None
    membership = _read(folder / "membership.json", read_membership_fields, fields)
    try:
        read_private(folder / f"identity-{membership.slot}.pem")
    except NotFound:
        raise _damaged(folder / f"identity-{membership.slot}.pem", "it is missing") from None
    return membership


def read_progress(folder: Path) -> Progress:
    """The progress in a state folder; needs no lock. Raises ``Invalid state_damaged`` or ``Denied not_private``."""
    fields = _read_json(folder / "progress.json")
    return Progress() if fields is None else _read(folder / "progress.json", read_progress_fields, fields)


def _locked(folder: Path) -> int:
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise file_refusal(error, folder / "lock", "open") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Conflict(
            "already_running",
            f"another henge-agent works on {folder}",
            cure="stop it first (systemctl stop henge-agent), or name another folder with --state-dir",
        ) from None
    return fd


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = parse(read_private(path))
    except NotFound:
        return None
    except HengeError as error:
        if error.kind in ("malformed", "too_large"):
            raise _damaged(path, error.message) from None
        raise
    if not isinstance(value, dict) or value.get("version") != 1:
        raise _damaged(path, "it is not of version 1")
    return value


def _read(path: Path, reader: Callable[[Mapping[str, Any]], _T], fields: Mapping[str, Any]) -> _T:
    try:
        return reader(fields)
    except (KeyError, TypeError, ValueError, WireError) as error:
        raise _damaged(path, f"field {error} is missing or wrong") from None


def _damaged(path: Path, why: str) -> Invalid:
    return Invalid(
        "state_damaged",
        f"{path} is damaged: {why}",
        cure="put the folder back from a backup, or remove it and join again: henge-agent join --replace",
    )
