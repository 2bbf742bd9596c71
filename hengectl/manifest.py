"""Files with objects: YAML or JSON, single or many, folders, standard input.

What is read here is checked for form only (kind, name, each object once); whether it makes sense the daemon
says, and ``Manifest.place`` turns its pointers back into file, line and column.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from henge_protocol import strictjson
from henge_protocol.errors import HengeError, Invalid, Malformed, NotFound, Problem, TooLarge
from henge_protocol.fieldpath import tokens
from henge_protocol.keyfiles import file_refusal
from henge_protocol.model import API_VERSION, PLURALS, is_name
from hengectl.yamltext import MAX_DEPTH, Node, read_documents

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
MAX_FILES: Final = 10_000
SUFFIXES: Final = (".yaml", ".yml", ".json")
STDIN: Final = "-"

_JSON_LIMITS = strictjson.JsonLimits(max_depth=MAX_DEPTH, max_nodes=500_000, max_keys=100_000)


@dataclass(slots=True)
class Source:
    """The text of one file; nodes with places are made when somebody asks for a place."""

    name: str
    text: str
    documents: list[Node] = field(default_factory=list)

    def node(self, document: int) -> Node | None:
        """The document's nodes; nothing if it is JSON that cannot be read as YAML."""
        if not self.documents:
            try:
                self.documents = read_documents(self.text, self.name)
            except HengeError:  # JSON is nearly, not quite, a subset of YAML
                return None
        return self.documents[document] if document < len(self.documents) else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One object and where it came from."""

    value: dict[str, Any]
    source: Source
    document: int
    path: tuple[str, ...] = ()
    """Keys from the document to the object: empty, or into the items of a List."""

    @property
    def ref(self) -> str:
        """``group/kitchen``."""
        return f"{str(self.value['kind']).lower()}/{self.value['metadata']['name']}"

    def place(self, pointer: str) -> str:
        """``file:line:column`` of a JSON pointer into the object, or of the deepest part of it that exists."""
        node = self.source.node(self.document)
        if node is None:
            return self.source.name
        inside = node.at(list(self.path))
        found = inside.at(_in_object(inside, list(tokens(pointer))))
        return f"{self.source.name}:{found.line}:{found.column}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """All objects of a command's files."""

    entries: tuple[Entry, ...]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The objects as they go to the daemon."""
        return [entry.value for entry in self.entries]

    def place(self, problem: Problem) -> str:
        """Where in the files a problem lies that the daemon found; empty if it lies in none of them."""
        for number, entry in enumerate(self.entries, 1):
            alone = not problem.object and len(self.entries) == 1
            if alone or problem.object.lower() in (entry.ref, f"#{number}"):
                return entry.place(problem.pointer)
        return ""

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Around what is asked of the daemon: its refusals get the places of their problems in the files."""
        try:
            yield
        except HengeError as error:
            self.add_places(error)
            raise

    def add_places(self, error: HengeError) -> None:
        """Give a refusal of the daemon the places of its problems."""
        error.extra["places"] = [self.place(problem) for problem in error.problems]


def read(
    names: Sequence[str], *, folder: str = "", may_be_empty: bool = False, told: Callable[[int], None] = lambda _: None
) -> Manifest:
    """Read files, folders (recursively, in sorted order, hidden files left out) and ``-``, or what kustomize makes of a
    ``folder``; ``told`` hears the number of each.

    Raises ``Malformed``, ``Invalid``, ``NotFound`` and ``TooLarge``; every message names the file.
    """
    sources = _kustomized(folder) if folder else _sources(names, may_be_empty=may_be_empty)
    entries: list[Entry] = []
    for number, (source, is_json) in enumerate(sources, 1):
        told(number)
        entries += _entries(source, is_json=is_json)
    if not entries and not may_be_empty:
        where = ", ".join([folder] if folder else names)[:200]
        raise Invalid("bad_object", f"there is no object in {where}", cure="see examples/homelab")
    _refuse_twins(entries)
    return Manifest(tuple(entries))


def decode(data: bytes, name: str) -> str:
    """Text from UTF-8 bytes, with or without a byte order mark; ``Malformed`` ``bad_encoding`` otherwise."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        raise Malformed("bad_encoding", f"{name} is UTF-16 or binary", cure="save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(
            "bad_encoding", f"{name}:{line}: byte 0x{data[error.start]:02x} is not UTF-8", cure="save it as UTF-8"
        ) from None


def _kustomized(folder: str) -> Iterator[tuple[Source, bool]]:
    from hengectl.kustomize import build  # subprocess takes 10 ms to import

    name = f"(kustomize {folder})"
    yield Source(name, decode(build(folder, max_bytes=MAX_FILE_BYTES), name)), False


def _sources(names: Sequence[str], *, may_be_empty: bool) -> Iterator[tuple[Source, bool]]:
    for name in names:
        if name == STDIN:
            yield (
                Source("(stdin)", decode(_limited(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "(stdin)"), "(stdin)")),
                False,
            )
            continue
        for path in _files(Path(name), may_be_empty=may_be_empty):
            yield Source(str(path), decode(_bytes(path), str(path))), path.suffix == ".json"


def _files(path: Path, *, may_be_empty: bool) -> list[Path]:
    if not os.path.isdir(path):  # no error for what may not be looked at: reading it says what is wrong
        return [path]
    found: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
        if len(found) > MAX_FILES:
            raise TooLarge("too_large", f"{path} holds more than {MAX_FILES} files")
    if not found and not may_be_empty:
        raise Invalid("bad_object", f"there is no {', '.join('*' + suffix for suffix in SUFFIXES)} file in {path}")
    return sorted(found)


def _refuse_folder(error: OSError) -> NoReturn:
    """With ``--prune`` the objects of files that were not seen would be deleted."""
    raise file_refusal(error, Path(os.fsdecode(error.filename)), "read") from None


def _bytes(path: Path) -> bytes:
    """The file's content. A pipe is read if somebody writes to it (``-f <(command)``), and never waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise Invalid("bad_file", f"{path} is neither a file, a folder nor a pipe")
            first = file.read(MAX_FILE_BYTES + 1)
            os.set_blocking(fd, True)
            return _limited(_rest(file, first), str(path))
    except FileNotFoundError:
        why = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise NotFound(
            "bad_file", f"{path} {why}", cure="name a file or a folder that is there, or - for a pipe"
        ) from None
    except OSError as error:
        raise file_refusal(error, path, "read") from None


def _rest(file: Any, first: bytes | None) -> bytes:
    """Read on: raw reads may be short, and the first of a pipe finds nothing yet (``None``) or no writer (empty)."""
    data = bytearray(first or b"")
    if first == b"":
        return b""
    while len(data) <= MAX_FILE_BYTES and (more := file.read(MAX_FILE_BYTES + 1 - len(data))):
        data += more
    return bytes(data)


def _limited(data: bytes, name: str) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge("too_large", f"{name} has more than {MAX_FILE_BYTES >> 20} MiB")
    return data


def _entries(source: Source, *, is_json: bool) -> Iterator[Entry]:
    for number, value in enumerate(_values(source, is_json=is_json)):
        yield from _objects(value, source, number)


def _values(source: Source, *, is_json: bool) -> list[object]:
    if not is_json:
        source.documents = read_documents(source.text, source.name)
        return [node.value for node in source.documents]
    try:
        return [strictjson.parse(source.text.encode(), limits=_JSON_LIMITS)]
    except Malformed as error:
        place = ":".join(str(error.extra[key]) for key in ("line", "column") if key in error.extra)
        where = f"{source.name}:{place}" if place else source.name
        raise Malformed(error.code, f"{where}: {error.message}", cure=error.cure) from None


def _objects(value: object, source: Source, document: int) -> Iterator[Entry]:
    if isinstance(value, dict) and isinstance(value.get("kind"), str) and value["kind"].endswith("List"):
        items = value.get("items")
        if not isinstance(items, list):
            raise Invalid("bad_object", f"{source.name}: a {value['kind']} needs a list of 'items'")
        for index, item in enumerate(items):
            yield _checked(item, source, document, ("items", str(index)))
    else:
        yield _checked(value, source, document, ())


def _checked(value: object, source: Source, document: int, path: tuple[str, ...]) -> Entry:
    entry = Entry(value if isinstance(value, dict) else {}, source, document, path)
    if not isinstance(value, dict):
        raise _refused(entry, "", "bad_object", "an object with apiVersion, kind, metadata and spec is expected")
    if value.get("apiVersion") != API_VERSION:
        said = f"apiVersion is {ascii(value['apiVersion'])[:60]}" if "apiVersion" in value else "apiVersion is missing"
        cure = f"apply what kustomize makes of it: -k {Path(source.name).parent}" if _is_kustomization(source) else ""
        raise _refused(entry, "/apiVersion", "bad_object", f"{said}; {API_VERSION} is right", cure=cure)
    if value.get("kind") not in PLURALS:
        said = f"kind {ascii(value['kind'])[:60]} is unknown" if "kind" in value else "kind is missing"
        raise _refused(entry, "/kind", "unknown_kind", f"{said}; there are {', '.join(PLURALS)}")
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or "name" not in metadata:
        raise _refused(entry, "/metadata", "bad_object", "metadata.name is missing")
    if not is_name(metadata["name"]):
        shown = ascii(metadata["name"])[:70]
        raise _refused(
            entry, "/metadata/name", "bad_name", f"the name {shown} is not of the form a-z, 0-9 and inner hyphens"
        )
    return entry


def _is_kustomization(source: Source) -> bool:
    return Path(source.name).stem.lower() == "kustomization"


def _refused(entry: Entry, pointer: str, code: str, message: str, *, cure: str = "") -> Invalid:
    return Invalid(code, f"{entry.place(pointer)}: {message}", cure=cure)


def _refuse_twins(entries: Iterable[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.ref, entry)
        if first is not entry:
            raise Invalid(
                "bad_object", f"{entry.place('')}: {entry.ref} is given a second time, first at {first.place('')}"
            )


def _in_object(node: Node, keys: list[str]) -> list[str]:
    """A pointer into values or a document, seen from the object: only objects have a ``spec`` beside ``kind``."""
    if not keys or node.child(keys[0]) is not None:
        return keys
    return ["spec", "values", *keys]
