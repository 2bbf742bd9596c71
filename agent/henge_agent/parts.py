"""Parts of documents and of files: a field by its path, and the values in a file that are the device's own. Pure.

A field that is *unmanaged* belongs to the device. The agent reads it from the file before it writes the file, and puts
it back as it was; what the document says about it is left out, and where the file has none, none is made.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from henge_agent.formats import TOP_SECTION, cannot, render
from henge_agent.settings import Field, Format, Output
from henge_protocol.errors import Invalid
from henge_protocol.fieldpath import pointer
from henge_protocol.strictjson import canonical

MISSING: Final = object()

_ENV_LINE = re.compile(
    r"""(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"'#;]*)[ \t]*(?:\#[^\n]*)?(?:\n|\Z)""",
    re.ASCII | re.DOTALL,
)
_ENV_NOTHING = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n|[ \t]*#[^\n]*\Z|\s+\Z)")


def part_of(value: object, path: Field) -> Any:
    """The part of a document at a path; ``MISSING`` when there is none."""
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def with_own_values(part: object, output: Output, standing: bytes | None) -> bytes | None:
    """What the output's file has to hold: ``part``, with the device's own fields as they stand in the file now.

    A file that says the same in other words stays as it is. Raises ``Invalid``: ``does_not_fit``, or ``bad_file`` when
    the file cannot be read as what it is: nobody's values are thrown away because of a slip.
    """
    value = _copied({} if part is MISSING else part)
    if not isinstance(value, dict):
        raise cannot("", "only an object can have unmanaged fields")
    standing_value = None if standing is None else _read(standing, output)
    for field in output.unmanaged:
        _drop(value, field)
        for path, item in _own(standing_value or {}, field, output):
            _set(value, path, item)
    if not value and part is MISSING:
        return None
    wanted = render(canonical(value), value, output.format)
    if standing is not None and _same(standing_value, _read(wanted, output)):
        return standing
    return wanted


# ---- paths in values


def _copied(value: object) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def _drop(value: dict[str, Any], path: Field) -> None:
    around = part_of(value, path[:-1])
    if isinstance(around, dict):
        around.pop(path[-1], None)


def _set(value: dict[str, Any], path: Field, item: object) -> None:
    for key in path[:-1]:
        inner = value.setdefault(key, {})
        if not isinstance(inner, dict):
            raise cannot(pointer(path), "an unmanaged field lies in something that is no object")
        value = inner
    value[path[-1]] = item


def _same(one: object, other: object) -> bool:
    """Equal, and not only as ``1 == True`` is."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(item, other[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


# ---- files as values


def _read(data: bytes, output: Output) -> dict[str, Any]:
    form = output.format
    try:
        value = _READERS[form](data.decode())
    except (ValueError, RecursionError, configparser.Error) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unreadable(output, f"it is not {form}: {line[:150]}") from None
    if not isinstance(value, dict):
        raise _unreadable(output, f"it is no {form} object")
    return value


def _unreadable(output: Output, why: str) -> Invalid:
    """No fault of the document: the file may be half saved, and whole a moment later."""
    said = f"{output.path.name}: its own values cannot be kept, because {why}"
    return Invalid("bad_file", said, cure=f"mend {output.path}")


def _read_yaml(text: str) -> object:
    import yaml  # where no output is YAML with fields of its own, its memory is saved

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("aliases (*name) are not read: a few lines of them can stand for all memory")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Plain)  # noqa: S506 - it is a safe one
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _read_env(text: str) -> dict[str, str]:
    found, at = {}, 0
    while at < len(text):
        line = _ENV_LINE.match(text, at) or _ENV_NOTHING.match(text, at)
        if line is None:
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1}")
        if line.re is _ENV_LINE:
            found[line[1]] = _unquoted(line[2])
        at = line.end()
    return found


def _unquoted(text: str) -> str:
    if text.startswith('"'):
        return re.sub(r'\\(["\\$`])', r"\1", text[1:-1])
    return text[1:-1] if text.startswith("'") else text


def _read_ini(text: str) -> dict[str, dict[str, str]]:
    reader = configparser.ConfigParser(interpolation=None, default_section="\0")
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    reader.read_string(text)
    return {name: dict(reader[name]) for name in reader.sections()}


_READERS: Final[dict[Format, Any]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": _read_yaml,
    "env": _read_env,
    "ini": _read_ini,
}


def _own(standing: Mapping[str, Any], field: Field, output: Output) -> Iterator[tuple[Field, object]]:
    """The device's own values at and below a field, with the paths at which they are written again."""
    if output.format == "env":
        name = re.sub(r"[^A-Z0-9_]", "_", "_".join(field).upper())
        yield from (((key,), item) for key, item in standing.items() if f"{key}_".startswith(f"{name}_"))
    elif output.format == "ini":
        yield from _own_ini(standing, field)
    else:
        item = part_of(standing, field)
        if item is not MISSING:
            _check_plain(item, pointer(field), output)
            yield field, item


def _own_ini(standing: Mapping[str, Mapping[str, str]], field: Field) -> Iterator[tuple[Field, object]]:
    whole = ".".join(field)
    for name, lines in standing.items():
        if name == (".".join(field[:-1]) or TOP_SECTION):
            yield from ((field, item) for key, item in lines.items() if key == field[-1])
        elif f"{name}.".startswith(f"{whole}."):
            inside = tuple(filter(None, name[len(whole) :].split(".")))
            yield from (((*field, *inside, key), item) for key, item in lines.items())


def _check_plain(item: object, pointer: str, output: Output) -> None:
    try:
        json.dumps(item, allow_nan=False)
    except (TypeError, ValueError):
        raise _unreadable(output, f"{pointer} holds what JSON does not know (a date, not a number)") from None
