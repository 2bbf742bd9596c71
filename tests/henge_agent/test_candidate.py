from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from henge_agent.candidate import checked
from henge_agent.records import Version
from henge_agent.schemas import Schemas
from henge_agent.settings import Output
from henge_agent.verdicts import Setback
from henge_protocol.model import digest_of
from henge_protocol.wire import Config

DOCUMENT = b'{"color":"red","text":"a\\nb"}'
SCHEMA = b'{"properties":{"color":{"const":"blue"}}}'
CONFIG = Config("e", 1, digest_of(DOCUMENT), document=DOCUMENT)
VERSION = Version("e", 1, digest_of(DOCUMENT))


def schemas(folder: Path) -> Schemas:
    async def answer() -> bytes:
        return SCHEMA

    made = Schemas(folder)
    made.source = answer
    return made


async def test_a_candidate_knows_what_each_output_has_to_hold_and_whether_it_does(tmp_path: Path) -> None:
    output = Output(tmp_path / "lamp.json", "json", mode=0o600)
    candidate = await checked(CONFIG, VERSION, [output], schemas(tmp_path))

    assert (candidate.wanted[0].content, candidate.schema) == (DOCUMENT, None)
    assert not candidate.is_in_place()
    output.path.write_bytes(DOCUMENT)
    output.path.chmod(0o644)
    assert not candidate.is_in_place()
    output.path.chmod(0o600)
    assert candidate.is_in_place()
    output.path.unlink()
    output.path.mkdir()
    assert not candidate.is_in_place()


@pytest.mark.parametrize(
    ("config", "reason", "pointer"),
    [
        (replace(CONFIG, schema=digest_of(SCHEMA)), "invalid", "/color"),
        (CONFIG, "invalid", "/text"),
        (replace(CONFIG, document=b"{}", schema=digest_of(SCHEMA)), "digest-mismatch", ""),
    ],
)
async def test_what_is_found_first_is_what_is_told(tmp_path: Path, config: Config, reason: str, pointer: str) -> None:
    with pytest.raises(Setback) as setback:
        await checked(config, VERSION, [Output(tmp_path / "lamp.ini", "ini")], schemas(tmp_path))

    assert (setback.value.state, setback.value.reason) == ("rejected", reason)
    assert "".join(error.pointer for error in setback.value.errors) == pointer


async def test_a_file_of_the_device_that_is_half_saved_is_no_fault_of_the_document(tmp_path: Path) -> None:
    output = Output(tmp_path / "lamp.json", "json", unmanaged=(("own",),))
    output.path.write_text('{"own":1, "col')
    with pytest.raises(Setback) as setback:
        await checked(CONFIG, VERSION, [output], schemas(tmp_path))

    assert (setback.value.state, setback.value.reason) == ("rejected", "write-failed")
    output.path.write_text('{"own":1}')
    assert await checked(CONFIG, VERSION, [output], schemas(tmp_path))


@pytest.mark.parametrize(
    "schema",
    [b'{"$defs":{"a":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}', b'{"properties":{"color":{"minLength":"x"}}}'],
)
async def test_a_schema_that_the_agent_does_not_understand_is_as_good_as_none(tmp_path: Path, schema: bytes) -> None:
    async def answer() -> bytes:
        return schema

    odd = Schemas(tmp_path)
    odd.source = answer
    with pytest.raises(Setback) as setback:
        await checked(replace(CONFIG, schema=digest_of(schema)), VERSION, [], odd)

    assert (setback.value.state, setback.value.reason) == ("rejected", "schema-unavailable")
