"""The kinds of things a person names on the command line: ``devices``, ``device/lamp-1``, ``groups``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from henge_protocol.errors import Invalid
from henge_protocol.model import API_VERSION, check_name, check_secret_name

Object = Mapping[str, Any]
"""An object as the API gives it: apiVersion, kind, metadata, spec, status."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind by its names: ``device``, ``devices``, ``Device``; applied ones have an object behind them."""

    singular: str
    plural: str
    title: str
    applied: bool = True


SCHEMA: Final = Kind("schema", "schemas", "Schema")
GROUP: Final = Kind("group", "groups", "Group")
DEVICE: Final = Kind("device", "devices", "Device")
JOIN: Final = Kind("join", "joins", "Join", applied=False)
TOKEN: Final = Kind("token", "tokens", "Token", applied=False)
OPERATOR: Final = Kind("operator", "operators", "Operator", applied=False)
SECRET: Final = Kind("secret", "secrets", "Secret", applied=False)
REVISION: Final = Kind("revision", "revisions", "Revision", applied=False)

KINDS: Final = (SCHEMA, GROUP, DEVICE, JOIN, TOKEN, OPERATOR, SECRET, REVISION)
OBJECT_KINDS: Final = (SCHEMA, GROUP, DEVICE)


@dataclass(frozen=True, slots=True)
class Ref:
    """One thing by kind and name; its text is ``device/lamp-1``."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.singular}/{self.name}"

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"/v1/{self.kind.plural}/{self.name}"


def find_kind(word: str) -> Kind | None:
    """The kind that a word names in singular, plural or title form, in any case."""
    lowered = word.lower()
    return next((kind for kind in KINDS if lowered in (kind.singular, kind.plural)), None)


def parse_kind(word: str) -> Kind:
    """The kind that a word names; ``Invalid`` ``unknown_kind`` lists those there are."""
    kind = find_kind(word)
    if kind is None:
        known = [kind.plural for kind in KINDS]
        close = nearest(word.lower(), [*known, *(kind.singular for kind in KINDS)])
        raise Invalid(
            "unknown_kind",
            f"{ascii(word)[:60]} is not a kind of thing; there are {', '.join(known)}",
            cure=f"did you mean {close}?" if close else "see: hengectl get --help",
        )
    return kind


def parse_ref(text: str, *, of: tuple[Kind, ...] = OBJECT_KINDS) -> Ref:
    """Read ``device/lamp-1``; ``Invalid`` ``bad_usage``, ``unknown_kind`` or ``bad_name``."""
    word, slash, name = text.partition("/")
    if not slash:
        name = "NAME" if find_kind(word) else text[:63]
        example = (find_kind(word) or of[-1]).singular
        raise Invalid("bad_usage", f"{ascii(text)[:80]} is not of the form KIND/NAME", cure=f"write {example}/{name}")
    kind = parse_kind(word)
    if kind not in of:
        allowed = " or ".join(f"{kind.singular}/NAME" for kind in of)
        raise Invalid("bad_usage", f"{kind.singular} cannot be named here; write {allowed}")
    return Ref(kind, check_secret_name(name) if kind == SECRET else check_name(name, f"{kind.singular} name"))


def parse_refs(words: Sequence[str], *, of: tuple[Kind, ...] = OBJECT_KINDS) -> list[Ref]:
    """Read ``device/lamp-1 group/kitchen``, or ``device lamp-1 lamp-2``, each once; raises as ``parse_ref``."""
    if len(words) > 1 and not any("/" in word for word in words):
        words = [f"{words[0]}/{name}" for name in words[1:]]
    return list(dict.fromkeys(parse_ref(word, of=of) for word in words))


def nearest(word: str, known: Sequence[str], *, cutoff: float = 0.7) -> str:
    """That of the known words which was probably meant; empty if none is as close as ``cutoff`` (1 is the same)."""
    from difflib import get_close_matches  # 8 ms that those who mistype can wait for

    return next(iter(get_close_matches(word, known, n=1, cutoff=cutoff)), "")


def name_of(object_: Object) -> str:
    """The object's name, empty if it has none."""
    return str(object_.get("metadata", {}).get("name", ""))


def list_of(items: list[Object]) -> dict[str, Any]:
    """Many objects as one, in the form that ``apply -f`` reads again."""
    return {"apiVersion": API_VERSION, "kind": "List", "items": items}
