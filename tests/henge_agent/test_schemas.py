from __future__ import annotations

from pathlib import Path

import pytest

from henge_agent.schemas import FILE_NAME, Schemas
from henge_protocol.errors import HengeError, Unreachable
from henge_protocol.model import digest_of
from tests.henge_agent.cutting import FullDisk

ONE, TWO = b'{"type":"object"}', b'{"title":"2","type":"object"}'


class Daemon:
    """Answers with a schema, and counts."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked = 0

    async def __call__(self) -> bytes:
        self.asked += 1
        if not self.answer:
            raise Unreachable("unreachable", "gone")
        return self.answer


async def test_a_schema_is_fetched_once_and_kept(tmp_path: Path) -> None:
    schemas = Schemas(tmp_path)
    schemas.source = daemon = Daemon(ONE)

    assert await schemas.get(digest_of(ONE)) == {"type": "object"}
    assert await schemas.get(digest_of(ONE)) == {"type": "object"}
    assert await Schemas(tmp_path).get(digest_of(ONE)) == {"type": "object"}
    assert daemon.asked == 1
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_a_newer_schema_takes_the_place_of_the_one_that_was_named(tmp_path: Path) -> None:
    schemas = Schemas(tmp_path)
    schemas.source = Daemon(TWO)

    assert await schemas.get(digest_of(ONE)) == {"title": "2", "type": "object"}
    assert await Schemas(tmp_path).get(digest_of(TWO)) == {"title": "2", "type": "object"}


async def test_a_daemon_that_names_none_is_asked_for_none(tmp_path: Path) -> None:
    schemas = Schemas(tmp_path)
    schemas.source = daemon = Daemon(ONE)

    assert await schemas.get("") is None
    assert daemon.asked == 0


async def test_a_damaged_schema_is_fetched_again(tmp_path: Path) -> None:
    schemas = Schemas(tmp_path)
    schemas.source = daemon = Daemon(ONE)
    await schemas.get(digest_of(ONE))
    (tmp_path / FILE_NAME).write_bytes(ONE[:-1])

    assert await schemas.get(digest_of(ONE)) == {"type": "object"}
    assert daemon.asked == 2


@pytest.mark.parametrize("answer", [None, b"", b"[]", b"{", b"\xff"])
async def test_a_schema_that_cannot_be_had_is_told(tmp_path: Path, answer: bytes | None) -> None:
    schemas = Schemas(tmp_path)
    schemas.source = Daemon(answer) if answer is not None else None

    with pytest.raises(HengeError) as refusal:
        await schemas.get(digest_of(ONE))

    assert digest_of(ONE)[:8] in refusal.value.message
    assert not (tmp_path / FILE_NAME).exists()


async def test_on_a_full_disk_it_is_used_all_the_same(tmp_path: Path) -> None:
    schemas = Schemas(tmp_path, files=FullDisk())
    schemas.source = Daemon(ONE)

    assert await schemas.get(digest_of(ONE)) == {"type": "object"}
