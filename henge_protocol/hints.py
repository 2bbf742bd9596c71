"""Next steps that work as printed: the options that a person gave stand in the commands that are suggested. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence


def repeated(
    text: str, program: str, options: Sequence[str], *, but: Sequence[str] = (), after_command: bool = False
) -> str:
    """Return ``text`` with ``options`` put behind ``program`` wherever a command of it is named.

    ``after_command``: behind the command's word, where the program itself takes no options. Commands that begin with
    one of ``but`` stay as they are: they speak of another place.
    """
    if not options:
        return text
    given = " ".join(map(shlex.quote, options))
    left_out = "".join(rf"(?!{re.escape(words)}\b)" for words in but)
    command = "([a-z]+)" if after_command else "(?=[a-z])"
    found = re.compile(rf"\b{re.escape(program)} {left_out}{command}")
    return found.sub(lambda one: f"{one[0]} {given}" if after_command else f"{one[0]}{given} ", text)
