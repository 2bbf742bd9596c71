"""The authorities' files: every step is done or undone after a cut at any operation, or on a full disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hengd.archive import AUTHORITIES, UNDER_WAY
from hengd.authorities import Authorities, make_authorities
from hengd.leaf import make_leaf, server_leaf
from henge_protocol import pki
from henge_protocol.errors import Conflict, Internal, StorageFull
from henge_protocol.keyfiles import DISK
from tests.henge_agent.cutting import Cut, CuttingFiles, FullDisk

NOW = 1_900_000_000.0
FLEET = pki.new_id(bytes(16))

Step = Callable[[Authorities], object]


def introduce(authorities: Authorities) -> None:
    authorities.introduce(now=NOW)


def switch(authorities: Authorities) -> None:
    coming = authorities.next_server
    assert coming is not None
    authorities.switch(make_leaf(coming, FLEET, names=["localhost"], now=NOW))


def replace_client(authorities: Authorities) -> None:
    authorities.replace_client(now=NOW)


def take_key_away(authorities: Authorities) -> None:
    (authorities.folder.parent / "stick").write_bytes(authorities.server.key_pem)
    authorities.remove_server_key()


def put_key_back(authorities: Authorities) -> None:
    authorities.put_server_key((authorities.folder.parent / "stick").read_bytes())


STEPS: dict[str, tuple[list[Step], Step]] = {
    "introduce": ([], introduce),
    "withdraw": ([introduce], lambda one: one.withdraw()),
    "switch": ([introduce], switch),
    "switch with the key elsewhere": ([take_key_away, introduce], switch),
    "drop the old server authority": ([introduce, switch], lambda one: one.drop_old("server")),
    "replace the client authority": ([], replace_client),
    "drop the old client authority": ([replace_client], lambda one: one.drop_old("client")),
    "take the key away": ([], take_key_away),
    "put the key back": ([take_key_away], put_key_back),
}
"""What has been done before, and the step."""


def founded(folder: Path, before: Sequence[Step] = (), files: Any = DISK) -> Authorities:
    folder.mkdir(mode=0o700)
    make_authorities(folder, FLEET, now=NOW)
    authorities = Authorities(folder)
    server_leaf(authorities, names=["localhost"], now=NOW)
    for step in before:
        step(authorities)
    return Authorities(folder, files=files)


def state(authorities: Authorities) -> list[Any]:
    """Everything that is in force."""
    return [
        authorities.client, authorities.server, authorities.next_server, authorities.old_server, authorities.old_client,
    ]  # fmt: skip


def standing(authorities: Authorities) -> tuple[object, ...]:
    """Which step they are in: keys that a step makes are others at each try."""
    return (
        bool(authorities.server.key_pem), authorities.next_server is None, authorities.old_server is None,
        authorities.old_client is None, len(authorities.server_ders), len(authorities.client_ders),
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_step_that_is_cut_at_any_operation_is_done_or_undone_at_the_next_start(tmp_path: Path, name: str) -> None:
    before, step = STEPS[name]
    done = founded(tmp_path / "done", before)
    undone = standing(done)
    step(done)
    reached = standing(done)
    assert reached != undone
    seen, is_cut, n = set(), True, 0
    while is_cut:
        folder, n = tmp_path / f"cut-{n}", n + 1
        authorities = founded(folder, before)
        was = state(authorities)
        try:
            step(Authorities(folder, files=CuttingFiles(n - 1)))  # type: ignore[arg-type]
            is_cut = False
        except Cut:
            pass
        found = Authorities(folder)

        assert standing(found) in (undone, reached), n
        assert standing(found) == reached or state(found) == was, n
        assert was[0].certificate_der in found.client_ders or name == "drop the old client authority"
        server_leaf(found, names=["localhost"], now=NOW)
        assert state(Authorities(folder)) == state(found), n
        names = {path.name for path in folder.iterdir()}
        assert not any(one.startswith(".") for one in names), names  # it may be a key that is kept elsewhere
        assert ("server-ca.offline" in names) == (not found.server.key_pem), names
        assert any("next" in one for one in names) == (found.next_server is not None), names
        seen.add(standing(found))
        shutil.rmtree(folder)
    assert seen == {undone, reached}


@pytest.mark.parametrize("name", sorted(set(STEPS) - {"withdraw", "drop the old server authority",
                                                      "drop the old client authority"}))  # fmt: skip
def test_a_step_on_a_full_disk_changes_nothing_and_works_when_there_is_room(tmp_path: Path, name: str) -> None:
    before, step = STEPS[name]
    disk = FullDisk()
    authorities = founded(tmp_path / "ca", before, disk)
    was, files = state(authorities), {path.name for path in (tmp_path / "ca").iterdir()}
    with pytest.raises(StorageFull):
        step(authorities)

    assert state(authorities) == was == state(Authorities(tmp_path / "ca"))
    assert {path.name for path in (tmp_path / "ca").iterdir()} == files
    disk.full = False
    step(authorities)
    assert state(authorities) != was


@pytest.mark.parametrize("name", sorted(STEPS))
def test_whatever_lies_there_after_a_step_belongs_in_a_backup(tmp_path: Path, name: str) -> None:
    before, step = STEPS[name]
    step(founded(tmp_path / "ca", before))

    assert {f"ca/{path.name}" for path in (tmp_path / "ca").iterdir()} <= {*AUTHORITIES, *UNDER_WAY}


def test_the_old_key_is_gone_after_the_switch(tmp_path: Path) -> None:
    authorities = founded(tmp_path / "ca", [introduce])
    old, coming = authorities.server, authorities.next_server
    assert coming is not None
    switch(authorities)

    assert authorities.server == coming
    assert authorities.old_server == old.certificate_der
    assert not any(old.key_pem in path.read_bytes() for path in (tmp_path / "ca").iterdir())
    assert authorities.server_ders == (coming.certificate_der, old.certificate_der)


def test_a_key_that_is_gone_without_a_word_is_no_key_kept_elsewhere(tmp_path: Path) -> None:
    founded(tmp_path / "ca")
    (tmp_path / "ca" / "server-ca.key").unlink()
    other = pki.fingerprint(pki.make_ca("server", FLEET, now=NOW).certificate_der).hex()
    for said in (None, b"", other.encode()):
        if said is not None:
            (tmp_path / "ca" / "server-ca.offline").write_bytes(said)
            (tmp_path / "ca" / "server-ca.offline").chmod(0o600)
        with pytest.raises(Internal) as refused:
            Authorities(tmp_path / "ca")
        assert refused.value.code == "bad_authority"


def test_the_key_is_put_back_and_no_other(tmp_path: Path) -> None:
    authorities = founded(tmp_path / "ca")
    key = authorities.server.key_pem
    authorities.remove_server_key()
    assert authorities.server.key_pem == b""
    for wrong in (pki.generate_key(), b"garbage", b"", authorities.client.key_pem):
        with pytest.raises(Conflict) as refused:
            authorities.put_server_key(wrong)
        assert refused.value.code == "wrong_authority"
        assert Authorities(tmp_path / "ca").server.key_pem == b""
    authorities.put_server_key(key)

    assert Authorities(tmp_path / "ca").server.key_pem == key
    assert not (tmp_path / "ca" / "server-ca.offline").exists()


@pytest.mark.parametrize("file", ["server-ca-next.crt", "server-ca-next.key", "server-ca-old.crt", "client-ca-old.crt"])
def test_what_a_rotation_left_and_is_damaged_is_refused_by_name(tmp_path: Path, file: str) -> None:
    before = [introduce] if "next" in file else [introduce, switch, replace_client]
    founded(tmp_path / "ca", before)
    (tmp_path / "ca" / file).write_bytes(b"garbage")
    with pytest.raises(Internal) as refused:
        Authorities(tmp_path / "ca")

    assert (refused.value.code, file in refused.value.message) == ("bad_authority", True)
    assert (tmp_path / "ca" / file).read_bytes() == b"garbage"


def test_an_authority_of_another_fleet_is_no_next_one(tmp_path: Path) -> None:
    founded(tmp_path / "ca")
    stranger = pki.make_ca("server", pki.new_id(b"another fleet..."), now=NOW)
    (tmp_path / "ca" / "server-ca-next.crt").write_bytes(pki.certificate_pem(stranger.certificate_der))
    (tmp_path / "ca" / "server-ca-next.key").write_bytes(stranger.key_pem)
    (tmp_path / "ca" / "server-ca-next.key").chmod(0o600)
    with pytest.raises(Internal) as refused:
        Authorities(tmp_path / "ca")
    assert refused.value.code == "bad_authority"
