from __future__ import annotations

import io
import tarfile
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


def foreign(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in more.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(foreign("../evil"), id="F31 above"),
        pytest.param(foreign("ca/../../evil"), id="F31 detour"),
        pytest.param(foreign("/etc/evil"), id="F31 absolute"),
        pytest.param(foreign("revocations", tarfile.SYMTYPE, linkname="/etc/passwd"), id="F31 symbolic link"),
        pytest.param(foreign("revocations", tarfile.LNKTYPE, linkname="ca/client-ca.key"), id="F31 hard link"),
        pytest.param(foreign("revocations", tarfile.CHRTYPE, devmajor=1, devminor=5), id="F31 device"),
        pytest.param(foreign("revocations", tarfile.FIFOTYPE), id="F31 pipe"),
        pytest.param(foreign("revocations", tarfile.DIRTYPE), id="F31 folder"),
        pytest.param(foreign("revocations", tarfile.CONTTYPE), id="F31 of another kind"),
        pytest.param(foreign("ca/client-ca.key"), id="F31 twice"),
        pytest.param(foreign("db/data.mdb"), id="F31 the store twice"),
    ],
)
def test_what_does_not_belong_in_it_is_refused_and_nothing_is_made_of_it(
    tmp_path: Path, member: tarfile.TarInfo
) -> None:
    (tmp_path / "store").write_bytes(b"s" * 1000)
    packed = b"".join(archive.pack(dict.fromkeys(archive.AUTHORITIES, b"key"), tmp_path / "store"))
    ended = len(packed) - 2 * tarfile.BLOCKSIZE
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Invalid) as refused:
        archive.unpack(io.BytesIO(packed[:ended] + member.tobuf() + packed[ended:]), tmp_path / "out")

    assert refused.value.code == "bad_backup"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "out", *before]
