"""Telling programs of a document: the commands of the person who knows what it is for, and what they are told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from henge_agent.hooks import Outcome, run_command
from henge_agent.records import Version
from henge_agent.state import State
from henge_protocol.strictjson import parse


class Activation:
    """Runs commands about documents; ``timeout_s`` bounds each."""

    def __init__(self, state: State, *, environ: Mapping[str, str], timeout_s: float) -> None:
        self._state = state
        self._environ = environ
        self._timeout_s = timeout_s

    async def run(self, command: str, version: Version, *, returning: bool, most_s: float = math.inf) -> Outcome | None:
        """Run a command about ``version``; ``returning`` when the last good document comes back. None: no command."""
        if not command:
            return None
        environ = self._told(version, returning=returning)
        try:
            return await run_command(command, environ, timeout_s=min(self._timeout_s, most_s))
        except OSError as error:
            return Outcome(126, timed_out=False, output=f"cannot run it: {error.strerror}".encode())

    def _told(self, version: Version, *, returning: bool) -> dict[str, str]:
        progress = self._state.progress
        before = progress.staged if returning else progress.running
        if before is not None and before.digest == version.digest:
            before = progress.previous
        return {
            **self._environ,
            "HENGE_DOCUMENT": str(self._state.document_file(version.digest)),
            "HENGE_PREVIOUS": str(self._state.document_file(before.digest)) if before else "",
            "HENGE_DIGEST": version.digest,
            "HENGE_REVISION": str(version.revision),
            "HENGE_CHANGED": " ".join(self._changed(version, before)),
            "HENGE_ROLLBACK": "1" if returning else "",
        }

    def _changed(self, version: Version, before: Version | None) -> list[str]:
        new, old = self._fields(version), self._fields(before)
        return sorted(
            name for name in new.keys() | old.keys() if name not in new or new[name] != old.get(name, _MISSING)
        )

    def _fields(self, version: Version | None) -> dict[str, object]:
        document = self._state.document(version.digest) if version else None
        value = parse(document) if document else None
        return value if isinstance(value, dict) else {}


_MISSING: Final = object()


def hook_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The agent's own environment without what is the service manager's business with the agent alone."""
    private = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_", "HENGE_", "CREDENTIALS_DIRECTORY")
    return {name: value for name, value in environ.items() if not name.startswith(private)}
