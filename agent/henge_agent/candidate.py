"""A document that may become the one that runs: all that can be known of it before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from henge_agent.outputs import Written, is_in_place, render_all
from henge_agent.records import Version
from henge_agent.schemas import Schemas
from henge_agent.settings import Output
from henge_agent.validation import misfits
from henge_agent.verdicts import Setback, field_error, field_errors, unfit
from henge_protocol.errors import HengeError
from henge_protocol.strictjson import parse
from henge_protocol.wire import Config, FieldError

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
"""The largest document this agent takes; the daemon's schemas usually allow much less."""

_LOCAL_CODES: Final = frozenset({"bad_file", "too_large"})
"""Why a file of this device cannot be read. It may pass, and no document is to blame for it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document on its way, and what each output has to hold for it."""

    version: Version
    document: bytes
    wanted: tuple[Written, ...]
    schema: Mapping[str, Any] | None = None
    """What it fits; None when the daemon does not say."""

    def is_in_place(self) -> bool:
        """Whether the outputs hold it already."""
        return all(map(is_in_place, self.wanted))


async def checked(config: Config, version: Version, outputs: Sequence[Output], schemas: Schemas) -> Candidate:
    """The candidate: intact, JSON, fit for its schema and for every output. Raises ``Setback`` ``rejected``."""
    value = _value(config)
    schema = await _fitted(value, config.schema, schemas)
    try:
        wanted = await asyncio.to_thread(render_all, outputs, config.document, value)
    except HengeError as error:
        reason = "write-failed" if error.code in _LOCAL_CODES else "invalid"
        raise Setback("rejected", reason, *field_errors(error)) from None
    return Candidate(version, config.document, wanted, schema)


def _value(config: Config) -> object:
    if not config.intact:
        raise Setback("rejected", "digest-mismatch")
    if len(config.document) > MAX_DOCUMENT_BYTES:
        said = f"the document has {len(config.document)} bytes, at most {MAX_DOCUMENT_BYTES} are taken"
        raise Setback("rejected", "too-large", FieldError("", said))
    try:
        return parse(config.document)
    except HengeError as error:
        raise Setback("rejected", "not-json", field_error("", error.message)) from None


async def _fitted(value: object, digest: str, schemas: Schemas) -> Mapping[str, Any] | None:
    """The schema with this digest, which the document fits; None when none is named."""
    try:
        schema = await schemas.get(digest)
    except HengeError as error:
        raise Setback("rejected", "schema-unavailable", *field_errors(error)) from None
    try:
        found = await asyncio.to_thread(misfits, schema, value) if schema is not None else []
    except Exception as error:
        said = f"this agent does not understand the schema ({type(error).__name__})"
        raise Setback("rejected", "schema-unavailable", FieldError("", said)) from error
    if found:
        raise unfit(found)
    return schema
