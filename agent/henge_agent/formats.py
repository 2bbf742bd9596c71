"""A document in the formats that programs read: JSON verbatim, TOML, YAML, environment file, INI. Pure.

Each writer is deterministic (sorted as the document is) and refuses what its format cannot hold instead of
bending it: a value that reads back differently would be a silent change of configuration.

- ``json``: the document's bytes, verbatim.
- ``toml``: TOML 1.0; objects become tables, objects inside of lists inline tables.
- ``yaml``: block style that YAML 1.1 and 1.2 readers take alike; texts stand in double quotes.
- ``env``: ``KEY=value`` lines that a shell, systemd's ``EnvironmentFile=`` and dotenv readers agree on; nested
  names are joined by ``_`` and upper-cased, lists are written as JSON text.
- ``ini``: ``key = value`` lines; each object is a section, nested ones ``[a.b]``, fields at the top stand in
  ``[main]``; lists are written as JSON text. Read it without interpolation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from henge_agent.settings import Format
from henge_protocol import fieldpath
from henge_protocol.errors import Invalid, Problem

TOP_SECTION: Final = "main"

MAX_YAML_KEY_CHARS: Final = 1000
"""A reader of YAML looks 1024 characters ahead for the colon after a key."""

_YAML_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}", re.ASCII)
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
_ENV_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*", re.ASCII)
_INI_KEY = re.compile(r"[^\s=:\[\];#\x00-\x20\x7f](?:[^=:\x00-\x1f\x7f]*[^\s=:\x00-\x20\x7f])?")
_INI_SECTION = re.compile(r"[^\[\]\x00-\x1f\x7f]+")
_YAML_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Beyond JSON's escapes: what YAML does not print, or takes for the end of a line."""
_LINE_ENDS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_ENV_UNHOLDABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

_Leaf = tuple[tuple[str, ...], str, object]
"""Path, pointer and value of a field that is no object."""

_TOML_ESCAPES: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def render(document: bytes, value: object, form: Format) -> bytes:
    """The file's content for a document and its parsed ``value``.

    Raises ``Invalid does_not_fit`` with the pointer of the spot that the format cannot hold.
    """
    if form == "json":
        return document
    if not isinstance(value, dict):
        raise cannot("", f"a document that is not an object cannot be written as {form}")
    text = _WRITERS[form](value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise cannot("", "half a surrogate pair cannot be written as UTF-8") from None


# ---- TOML 1.0


def _toml(value: Mapping[str, object]) -> str:
    return "\n".join(_toml_table(value, (), ""))


def _toml_table(table: Mapping[str, object], path: tuple[str, ...], pointer: str) -> Iterator[str]:
    """The lines of one table; empty lines separate tables, the last line ends the text."""
    tables = {key: item for key, item in table.items() if isinstance(item, dict)}
    if path and (len(tables) < len(table) or not table):
        yield f"[{'.'.join(map(_toml_key, path))}]"
    for key, item in table.items():
        if key not in tables:
            yield f"{_toml_key(key)} = {_toml_value(item, below(pointer, key))}"
    if len(tables) < len(table) or not path or not table:
        yield ""
    for key, item in tables.items():
        yield from _toml_table(item, (*path, key), below(pointer, key))


def _toml_value(item: object, pointer: str) -> str:
    if isinstance(item, str):
        return _toml_text(item)
    if isinstance(item, dict):
        inner = (f"{_toml_key(key)} = {_toml_value(value, below(pointer, key))}" for key, value in item.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(item, list):
        return "[" + ", ".join(_toml_value(value, below(pointer, at)) for at, value in enumerate(item)) + "]"
    return _scalar(item, pointer, "TOML")


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _toml_text(key)


def _toml_text(text: str) -> str:
    return '"' + "".join(map(_toml_char, text)) + '"'


def _toml_char(char: str) -> str:
    if char in _TOML_ESCAPES:
        return _TOML_ESCAPES[char]
    return f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char


# ---- YAML


def _yaml(value: Mapping[str, object]) -> str:
    return "".join(f"{line}\n" for line in _yaml_lines(value, 0, "")) if value else "{}\n"


def _yaml_lines(item: Mapping[str, object] | list[object], depth: int, pointer: str) -> Iterator[str]:
    """The lines of an object or list that is not empty."""
    indent = "  " * depth
    pairs = enumerate(item) if isinstance(item, list) else item.items()
    for key, inner in pairs:
        spot = below(pointer, key)
        name = f"{_yaml_key(key, spot)}:" if isinstance(key, str) else "-"
        if isinstance(inner, dict | list) and inner:
            yield f"{indent}{name}"
            yield from _yaml_lines(inner, depth + 1, spot)
        else:
            yield f"{indent}{name} {_yaml_scalar(inner, spot)}"


def _yaml_key(key: str, pointer: str) -> str:
    if _YAML_PLAIN_KEY.fullmatch(key) and key.lower() not in _YAML_WORDS:
        return key
    quoted = _yaml_text(key)
    if len(quoted) > MAX_YAML_KEY_CHARS:
        raise cannot(pointer, f"a key of more than {MAX_YAML_KEY_CHARS} characters cannot be written into YAML")
    return quoted


def _yaml_scalar(item: object, pointer: str) -> str:
    if isinstance(item, str):
        return _yaml_text(item)
    if isinstance(item, dict | list):
        return "{}" if isinstance(item, dict) else "[]"
    if item is None:
        return "null"
    text = _scalar(item, pointer, "YAML")
    if isinstance(item, float) and "." not in text:
        return text.replace("e", ".0e")  # without a point, readers of YAML 1.1 take it for a text
    return text


def _yaml_text(text: str) -> str:
    return _YAML_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


# ---- environment file


def _env(value: Mapping[str, object]) -> str:
    names: dict[str, str] = {}
    lines = []
    for path, pointer, item in _leaves(value, (), ""):
        name = re.sub(r"[^A-Z0-9_]", "_", "_".join(path).upper())
        if not _ENV_NAME.fullmatch(name):
            raise cannot(pointer, f"{name!r} is not the name of a variable")
        if name in names:
            raise cannot(pointer, f"this and {names[name]} would both become the variable {name}")
        names[name] = pointer
        lines.append(f"{name}={_env_value(item, pointer)}\n")
    return "".join(lines)


def _env_value(item: object, pointer: str) -> str:
    text = plain_text(item, pointer, "an environment file")
    if _ENV_UNHOLDABLE.search(text):
        raise cannot(pointer, "control characters cannot be written into an environment file")
    if _ENV_PLAIN.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


# ---- INI


def _ini(value: Mapping[str, object]) -> str:
    if isinstance(value.get(TOP_SECTION), dict) and any(not isinstance(item, dict) for item in value.values()):
        raise cannot(below("", TOP_SECTION), f"section {TOP_SECTION} holds the fields at the top, and is a field too")
    return "\n".join(_ini_sections(value, (), "", {}))


def _ini_sections(
    table: Mapping[str, object], path: tuple[str, ...], pointer: str, seen: dict[str, str]
) -> Iterator[str]:
    lines = list(_ini_lines(table, pointer))
    if lines or (path and not table):
        section = ".".join(path) if path else TOP_SECTION
        fits = _INI_SECTION.fullmatch(section) and not _LINE_ENDS.search(section)
        if not fits or section != section.strip() or section == "DEFAULT":
            raise cannot(pointer, f"{section!r} cannot be the name of a section")
        if section in seen:
            raise cannot(pointer, f"this and {seen[section]} would both become the section {section}")
        seen[section] = pointer
        yield f"[{section}]\n" + "".join(lines)
    for key, item in table.items():
        if isinstance(item, dict):
            yield from _ini_sections(item, (*path, key), below(pointer, key), seen)


def _ini_lines(table: Mapping[str, object], pointer: str) -> Iterator[str]:
    names: set[str] = set()
    for key, item in table.items():
        if isinstance(item, dict):
            continue
        spot = below(pointer, key)
        if not _INI_KEY.fullmatch(key) or _LINE_ENDS.search(key):
            raise cannot(spot, f"{key!r} cannot be a key in an INI file")
        if key.lower() in names:
            raise cannot(spot, f"{key!r} differs from another key only in case, which INI readers ignore")
        names.add(key.lower())
        yield f"{key} = {_ini_value(item, spot)}\n"


def _ini_value(item: object, pointer: str) -> str:
    text = plain_text(item, pointer, "an INI file")
    if _LINE_ENDS.search(text):
        raise cannot(pointer, "line ends and control characters cannot be written into an INI file")
    if text != text.strip():
        raise cannot(pointer, "white space at the ends of a text would be lost in an INI file")
    return text


# ---- what they share


def _leaves(table: Mapping[str, object], path: tuple[str, ...], pointer: str) -> Iterator[_Leaf]:
    for key, item in table.items():
        spot = below(pointer, key)
        if isinstance(item, dict):
            yield from _leaves(item, (*path, key), spot)
        else:
            yield (*path, key), spot, item


def plain_text(item: object, pointer: str, where: str) -> str:
    """A value as text: texts as they are, lists as JSON. Raises ``Invalid does_not_fit`` for ``null``."""
    if isinstance(item, str):
        return item
    if isinstance(item, list):
        return json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    return _scalar(item, pointer, where)


def _scalar(item: object, pointer: str, where: str) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float) and math.isfinite(item):
        return repr(item)
    raise cannot(pointer, f"{json.dumps(item)} cannot be written into {where}")


def below(pointer: str, key: str | int) -> str:
    """The pointer of a part."""
    return pointer + fieldpath.pointer((key,))


def cannot(pointer: str, message: str) -> Invalid:
    """The refusal of a spot that a format cannot hold."""
    shown = f"{pointer}: {message}" if pointer else message
    return Invalid("does_not_fit", shown, problems=[Problem(pointer, message)])


_WRITERS: Final[dict[Format, Callable[[Mapping[str, object]], str]]] = {
    "toml": _toml,
    "yaml": _yaml,
    "env": _env,
    "ini": _ini,
}
