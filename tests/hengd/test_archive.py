from __future__ import annotations

from pathlib import Path

import pytest

from hengd import archive
from henge_protocol.errors import Invalid


def test_an_archive_gives_back_what_was_packed_and_nothing_else_is_taken(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"s" * 1000)
    small = dict.fromkeys(archive.AUTHORITIES, b"key") | {"revocations": b""}
    packed = b"".join(archive.pack(small, tmp_path / "store"))

    assert archive.unpack([packed], tmp_path / "out") == small
    assert (tmp_path / "out").read_bytes() == b"s" * 1000
    for bad in (b"", b"x" * 2000, packed[:700], b"".join(archive.pack({"ca/x": b""}, tmp_path / "store"))):
        (tmp_path / "out").unlink(missing_ok=True)
        with pytest.raises(Invalid):
            archive.unpack([bad], tmp_path / "out")
