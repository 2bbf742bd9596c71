"""Texts with places for values: ``$name``, ``${some.name}``, and ``$$`` for a dollar sign.

A value is put in as text, with no quoting: what is right in one kind of file is wrong in another. Whoever writes the
template knows which. A field that the document does not have is an error, never an empty text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from henge_agent.formats import cannot, plain_text
from henge_agent.parts import MISSING, part_of
from henge_protocol.errors import Invalid
from henge_protocol.fieldpath import pointer
from henge_protocol.keyfiles import read_public
from henge_protocol.strictjson import canonical

MAX_TEMPLATE_BYTES: Final = 256 * 1024

_PLACE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([^{}\s]+)\})?", re.ASCII)


def template_text(path: Path) -> str:
    """The template in a file. Raises ``bad_file``, ``too_large`` or ``Invalid does_not_fit`` when it is not one."""
    data = read_public(path, limit_bytes=MAX_TEMPLATE_BYTES)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise cannot("", f"template {path.name} is not UTF-8") from None
    for found in _PLACE.finditer(text):
        if not found.lastindex:
            raise cannot("", f"{_line(path.name, text, found)}: a $ stands alone; write $$ for a dollar sign")
    return text


def fill(text: str, value: object, name: str) -> bytes:
    """The template with the fields of ``value``; raises ``Invalid does_not_fit`` naming line and field."""

    def replaced(found: re.Match[str]) -> str:
        return "$" if found[1] else _text_of(found[2] or found[3], value, _line(name, text, found))

    try:
        return _PLACE.sub(replaced, text).encode()
    except UnicodeEncodeError:
        raise cannot("", "half a surrogate pair cannot be written as UTF-8") from None


def _text_of(field: str, value: object, where: str) -> str:
    path = tuple(field.split("."))
    item = part_of(value, path)
    if item is MISSING:
        raise cannot(pointer(path), f"{where}: the document has no field {field}")
    if isinstance(item, dict):
        return canonical(item).decode()
    try:
        return plain_text(item, pointer(path), "a template")
    except Invalid:
        raise cannot(pointer(path), f"{where}: field {field} is null") from None


def _line(name: str, text: str, found: re.Match[str]) -> str:
    return f"{name} line {text.count(chr(10), 0, found.start()) + 1}"
