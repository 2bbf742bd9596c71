"""Where the key of the secrets is looked for, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hengd.keyring import CREDENTIAL, find_keys, make_key, own_key
from hengd.sealing import written_key
from henge_protocol.errors import HengeError

KEY = bytes(range(32))


def private(path: Path, mode: int = 0o600) -> Path:
    """A key file."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(written_key(KEY))
    path.chmod(mode)
    return path


def test_a_named_file_comes_before_a_credential_and_that_before_our_own(tmp_path: Path) -> None:
    credential = private(tmp_path / "credentials" / CREDENTIAL, 0o400)
    named, data_dir = private(tmp_path / "named"), tmp_path / "state"

    assert find_keys(str(named), credential.parent, data_dir)[0] == named
    assert find_keys("", credential.parent, data_dir)[0] == credential
    assert find_keys("", tmp_path, data_dir)[0] == find_keys("", None, data_dir)[0] == own_key(data_dir)


def test_a_key_that_is_made_can_be_read_and_is_another_each_time(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        make_key(own_key(tmp_path / name))
        found += find_keys("", None, tmp_path / name)[1]()

    assert len(set(found)) == 2
    assert {len(key) for key in found} == {32}


def test_keys_are_read_anew_each_time(tmp_path: Path) -> None:
    path = private(tmp_path / "key")
    _, read = find_keys(str(path), None, tmp_path)
    path.write_bytes(b"n" * 32)

    assert read() == [b"n" * 32]


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o644, 0o602, 0o777])
def test_f03_a_named_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "key", mode)

    with pytest.raises(HengeError) as refusal:
        find_keys(str(path), None, tmp_path)[1]()
    assert refusal.value.code == "not_private"


def test_a_named_key_file_may_be_readable_by_its_group_and_our_own_may_not(tmp_path: Path) -> None:
    own = private(own_key(tmp_path), 0o640)

    assert find_keys(str(own), None, tmp_path)[1]() == [KEY]
    with pytest.raises(HengeError) as refusal:
        find_keys("", None, tmp_path)[1]()
    assert refusal.value.code == "not_private"


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_credential_is_read_as_systemd_gives_it_older_and_newer(tmp_path: Path, mode: int) -> None:
    """With an access list (systemd 257) the mode shows the list's mask in the place of the group's rights."""
    credential = private(tmp_path / "credentials" / CREDENTIAL, mode)

    assert find_keys("", credential.parent, tmp_path)[1]() == [KEY]


def test_f02_our_own_key_is_not_read_through_a_link(tmp_path: Path) -> None:
    own = own_key(tmp_path)
    own.parent.mkdir()
    own.symlink_to(private(tmp_path / "elsewhere"))

    with pytest.raises(HengeError) as refusal:
        find_keys("", None, tmp_path)[1]()
    assert refusal.value.code == "bad_file"


@pytest.mark.parametrize("target", ["key", "nowhere"])
def test_f02_a_named_key_behind_a_link_that_leads_nowhere_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "key").symlink_to(tmp_path / target)

    with pytest.raises(HengeError) as refusal:
        find_keys(str(tmp_path / "key"), None, tmp_path)[1]()
    assert refusal.value.code == "bad_file"


@pytest.mark.parametrize("content", [b"", b"short\n"])
def test_a_file_without_a_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = private(tmp_path / "key")
    path.write_bytes(content)

    with pytest.raises(HengeError, match=str(path)) as refusal:
        find_keys(str(path), None, tmp_path)[1]()
    assert refusal.value.code == "bad_key"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HengeError, match="nowhere") as refusal:
        find_keys(str(tmp_path / "nowhere"), None, tmp_path)[1]()
    assert refusal.value.code == "bad_file"
