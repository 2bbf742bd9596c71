"""From a document back to the layer of its device: what everything else says already is left out. Pure.

Values of ``writeOnly`` fields become secrets, so that nothing of them stands in an object or in the history.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hengd.rules.merge import Values, is_reference, overlay, same
from hengd.rules.references import FindSecret, Place
from hengd.rules.schemas import CompiledSchema
from henge_protocol.fieldpath import pointer
from henge_protocol.model import SECRET_KEY, is_secret_name

PREFIX: Final = "rescued"
"""Where the secrets that a rescue makes stand."""
KeepSecret = Callable[[str, object], str]
"""Keeps a value under a name, or with a number behind it where that is another value's; the name that it has then."""
_LONGEST_NUMBER: Final = "-9999"
_UNFIT: Final = re.compile(r"[^a-z0-9]+")


def layer_of(
    schema: CompiledSchema, groups: Sequence[Mapping[str, object]], document: Mapping[str, object], find: FindSecret
) -> Values:
    """The least values that make ``document`` of what the schema and the groups say, in clear.

    Defaults of optional objects count where that gives the document; where it does not, the device says all of them.
    """
    below = [_opened(layer, find) for layer in groups]
    for defaults in (schema.defaults_for(document), schema.defaults_for(overlay(below))):
        layer = _difference(schema, overlay([defaults, *below]), document, ())
        said = [*below, layer]
        if same(overlay([schema.defaults_for(overlay(said)), *said]), document):
            break
    return layer


def concealed(schema: CompiledSchema, values: Any, keep: KeepSecret, place: Place = ()) -> Any:
    """``values`` with references in the place of what the schema marks ``writeOnly``, each of which is kept."""
    if values is not None and place and schema.is_secret(place):
        return {SECRET_KEY: keep(_name(place), values)}
    if isinstance(values, dict):
        return {key: concealed(schema, inner, keep, (*place, key)) for key, inner in values.items()}
    if isinstance(values, list):
        return [concealed(schema, inner, keep, (*place, index)) for index, inner in enumerate(values)]
    return values


def _name(place: Place) -> str:
    words = [_UNFIT.sub("-", str(part).lower()).strip("-") or "field" for part in place]
    name = "/".join([PREFIX, *words])
    if is_secret_name(name + _LONGEST_NUMBER):
        return name
    return f"{PREFIX}/{hashlib.sha256(pointer(place).encode()).hexdigest()[:16]}"


def _difference(
    schema: CompiledSchema, below: Mapping[str, object], wanted: Mapping[str, object], place: Place
) -> Values:
    """The merge patch from one to the other; a secret is one value."""
    patch: Values = {key: None for key in below if key not in wanted}
    for key, value in wanted.items():
        old, here = below.get(key), (*place, key)
        if isinstance(value, dict) and isinstance(old, dict) and not schema.is_secret(here):
            inner = _difference(schema, old, value, here)
            if inner:
                patch[key] = inner
        elif key not in below or not same(old, value):
            patch[key] = value
    return patch


def _opened(value: Any, find: FindSecret) -> Any:
    if is_reference(value):
        try:
            return find(value[SECRET_KEY])[1]
        except KeyError:
            return value
    if isinstance(value, dict):
        return {key: _opened(inner, find) for key, inner in value.items()}
    if isinstance(value, list):
        return [_opened(inner, find) for inner in value]
    return value
