"""The outputs while nothing is applied: what they have to hold, whether they do, and making them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from henge_agent.outputs import Written, is_in_place, original_of, put, put_back_of, render_all
from henge_agent.settings import Output
from henge_agent.state import State
from henge_protocol.errors import HengeError, Invalid
from henge_protocol.keyfiles import Files
from henge_protocol.model import short_digest
from henge_protocol.strictjson import parse

log = logging.getLogger(__name__)


class Standing:
    """The outputs of one agent. Methods block on the disk."""

    def __init__(self, state: State, outputs: tuple[Output, ...], *, files: Files) -> None:
        self._state = state
        self._outputs = outputs
        self._files = files
        self.untold = False
        """Whether an output was put back of which the on-change command does not know yet."""

    def remember_originals(self) -> None:
        """Keep what stands in the outputs' places, unless the agent has written there already."""
        untouched = self._state.progress.running is None and self._state.progress.staged is None
        for output in self._outputs:
            if untouched or not self._state.knows_original(output.path):
                self._state.keep_original(output.path, original_of(output.path))

    def restore(self, left: Sequence[Path]) -> None:
        """Make the outputs what the last good document asks for, or what stood there before the first one.

        One that cannot be written does not keep the others from it; the first trouble is raised at the end.
        """
        troubles = []
        for each in self._content():
            if each.path in left:
                continue
            try:
                if not self._state.knows_original(each.path):
                    self._state.keep_original(each.path, original_of(each.path))
                if put(each, files=self._files):
                    log.info("wrote %s again from the last good document", each.path)
                    self.untold = True
            except HengeError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def changed(self) -> list[Path]:
        """The outputs that do not hold what the agent wrote there. Raises ``Invalid`` when that cannot be told."""
        written = [each for each in self._content() if self._state.knows_original(each.path)]
        return [each.path for each in written if not is_in_place(each)]

    def _content(self) -> tuple[Written, ...]:
        """What the outputs have to hold while nothing is being applied."""
        running = self._state.progress.running
        if running is not None:
            document = self._state.document(running.digest)
            if document is None:
                raise Invalid("state_damaged", f"document {short_digest(running.digest)} is missing or damaged")
            return render_all(self._outputs, document, parse(document))
        if self._state.progress.staged is not None:
            return tuple(put_back_of(output.path, self._state.original(output.path)) for output in self._outputs)
        return ()
