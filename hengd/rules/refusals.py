"""Devices whose document cannot be rendered: one of them refuses the whole change, and all are told together. Pure."""

from __future__ import annotations

from typing import Final

from hengd.records import ObjectRecord
from hengd.rules.objects import object_path
from hengd.rules.rendering import Document
from henge_protocol.errors import Conflict, HengeError, Invalid, Problem, TooLarge

MAX_PROBLEMS: Final = 100
"""Enough to see what is wrong; a change that breaks 5,000 devices is told by count."""
SHOWN: Final = 8

_KINDS: Final[dict[str, type[HengeError]]] = {"conflicting_groups": Conflict, "document_too_large": TooLarge}
_CURES: Final = {
    "does_not_fit": "see what each layer says: hengectl why DEVICE; what is allowed: hengectl explain SCHEMA",
    "conflicting_groups": "give one of the groups another priority, or a selector that leaves these devices out",
    "too_complex": "set less; overrides of many ends: end some first, or set them together, so that they end together",
    "too_deep": "nest the values less deeply, or a secret that stands in them",
    "too_many_layers": "put values that go together into one group, or leave the devices out of some of the groups",
    "document_too_large": "shorten the values, or raise max_document of the schema if the devices can hold it",
}


class Refusals:
    """Collects devices that refuse a change; the first one's kind of trouble names the refusal."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._devices: list[str] = []
        self._code = ""

    def add(self, device: ObjectRecord, document: Document) -> None:
        """Note why ``device`` has no document."""
        path = object_path("Device", device.name)
        self._devices.append(device.name)
        self._code = self._code or document.code
        if len(self._problems) < MAX_PROBLEMS:
            self._problems += [Problem(problem.pointer, problem.message, path) for problem in document.problems]

    def finish(self) -> None:
        """Raise the refusal, if there is one."""
        if not self._devices:
            return
        count, first = len(self._devices), self._problems[0]
        shown = ", ".join(self._devices[:SHOWN]) + (f" and {count - SHOWN} more" if count > SHOWN else "")
        devices = "device" if count == 1 else "devices"
        raise _KINDS.get(self._code, Invalid)(
            self._code,
            f"refused for {count} {devices} ({shown}): {first.pointer or 'document'}: {first.message}",
            cure=_CURES.get(self._code, ""),
            problems=self._problems[:MAX_PROBLEMS],
            extra={"devices": self._devices[:MAX_PROBLEMS], "device_count": count},
        )
