"""Telling programs of a document: the commands of the person who knows what it is for, and what they are told."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from henge_agent.hooks import Outcome, run_command
from henge_agent.records import Version
from henge_agent.scopes import Scope, changed_fields, scope_of
from henge_agent.settings import Hooks
from henge_agent.state import State
from henge_protocol.fieldpath import is_clean, pointer
from henge_protocol.strictjson import parse

MAX_LISTED_BYTES: Final = 64 * 1024
"""Of fields in a variable; Linux gives one 128 KiB and starts no program beyond that."""

log = logging.getLogger(__name__)


class Activation:
    """Runs commands about documents; ``timeout_s`` bounds each."""

    def __init__(self, state: State, *, environ: Mapping[str, str], timeout_s: float) -> None:
        self._state = state
        self._environ = environ
        self._timeout_s = timeout_s

    def scope(self, version: Version, schema: Mapping[str, Any] | None) -> Scope:
        """What has to be started again for a document that is to follow the one that runs."""
        before = self._before(version, returning=False)
        found = scope_of(schema, changed_fields(self._fields(before), self._fields(version)))
        return found if before is not None else Scope(found.sections, everything=True, reboot=found.reboot)

    async def change(self, hooks: Hooks, version: Version, scope: Scope) -> tuple[str, Outcome] | None:
        """Run the commands that a change asks for until one fails; the last one's section and how it ended."""
        return await self._all(_asked_for(hooks, scope), version, returning=False)

    async def give_back(self, hooks: Hooks, version: Version) -> None:
        """Run all commands for the last good document, because programs may have seen another one; never raises."""
        commands = [*hooks.sections.items(), ("", hooks.on_change)]
        try:
            ran = await self._all(commands, version, returning=True)
        except Exception:  # it would come again at each start
            log.exception("programs cannot be told that the last good document is back")
            return
        if ran is not None and not ran[1].succeeded:
            said = ran[1].tail(200) or "it printed nothing"
            log.warning("the on-change command failed with the last good document too: %s", said)

    async def _all(
        self, commands: Iterable[tuple[str, str]], version: Version, *, returning: bool
    ) -> tuple[str, Outcome] | None:
        ran = None
        for section, command in commands:
            outcome = await self.run(command, version, returning=returning, section=section)
            if outcome is not None:
                ran = section, outcome
                if not outcome.succeeded and not returning:
                    break
        return ran

    async def run(
        self, command: str, version: Version, *, returning: bool, section: str = "", most_s: float = math.inf
    ) -> Outcome | None:
        """Run a command about ``version``; ``returning`` when the last good document comes back. None: no command."""
        if not command:
            return None
        environ = self._told(version, returning=returning) | {"HENGE_SECTION": section}
        try:
            return await run_command(command, environ, timeout_s=min(self._timeout_s, most_s))
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            return Outcome(126, timed_out=False, output=f"cannot run it: {said}".encode())

    def _before(self, version: Version, *, returning: bool) -> Version | None:
        progress = self._state.progress
        before = progress.staged if returning else progress.running
        return progress.previous if before is not None and before.digest == version.digest else before

    def _told(self, version: Version, *, returning: bool) -> dict[str, str]:
        before = self._before(version, returning=returning)
        changed = changed_fields(self._fields(before), self._fields(version))
        return {
            **self._environ,
            "HENGE_DOCUMENT": str(self._state.document_file(version.digest)),
            "HENGE_PREVIOUS": str(self._state.document_file(before.digest)) if before else "",
            "HENGE_DIGEST": version.digest,
            "HENGE_REVISION": str(version.revision),
            "HENGE_CHANGED": _listed(sorted({field[0] for field in changed if field}), " "),
            "HENGE_CHANGED_FIELDS": _listed([pointer(field) for field in changed], "\n"),
            "HENGE_ROLLBACK": "1" if returning else "",
        }

    def _fields(self, version: Version | None) -> dict[str, object]:
        document = self._state.document(version.digest) if version else None
        value = parse(document) if document else None
        return value if isinstance(value, dict) else {}


def _asked_for(hooks: Hooks, scope: Scope) -> Iterator[tuple[str, str]]:
    """Sections first; one without a command of its own is the business of the command for everything."""
    yield from ((name, hooks.sections[name]) for name in scope.sections if name in hooks.sections)
    if scope.everything or not hooks.sections.keys() >= set(scope.sections):
        yield "", hooks.on_change


def _listed(names: list[str], separator: str) -> str:
    """``*`` where a list would be too long, or a name in it could be taken for two or for the end."""
    text = separator.join(names)
    plain = all(is_clean(name) and separator not in name for name in names)
    return text if plain and len(text.encode()) <= MAX_LISTED_BYTES else "*"


def hook_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The agent's own environment without what is the service manager's business with the agent alone."""
    private = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_", "HENGE_", "CREDENTIALS_DIRECTORY")
    return {name: value for name, value in environ.items() if not name.startswith(private)}
