from __future__ import annotations

import hashlib
import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from henge_protocol.errors import HengeError
from hengectl import profile
from hengectl.address import Address
from hengectl.profile import Contexts, Profile


def made(folder: Path, name: str = "home") -> Contexts:
    contexts = profile.load(folder)
    one = Profile(name, Address("192.168.1.20"), "f" * 26, "ab" * 32, profile.credential_dir(contexts, name))
    profile.write_credential(one.credential, identity_pem=b"pem", server_cas=[b"der"], renew_after=5.0)
    return profile.add(contexts, one)


def test_contexts_survive_writing_and_reading(tmp_path: Path) -> None:
    contexts = made(tmp_path / "henge")
    profile.save(contexts)

    read = profile.load(tmp_path / "henge")
    assert read == contexts
    assert read.profile("home").server.url == "https://192.168.1.20:4364"


def test_what_is_written_is_toml_that_others_read(tmp_path: Path) -> None:
    profile.save(made(tmp_path / "henge"))

    table = tomllib.loads((tmp_path / "henge/config.toml").read_text())
    assert table["current"] == "home"
    assert table["contexts"]["home"]["credential"] == "credentials/home"


def test_a_credential_is_for_its_owner_only(tmp_path: Path) -> None:
    made(tmp_path / "henge")
    folder = tmp_path / "henge/credentials/home"

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_credential_others_can_read_is_not_used(tmp_path: Path) -> None:
    contexts = made(tmp_path / "henge")
    (tmp_path / "henge/credentials/home/identity.pem").chmod(0o644)

    with pytest.raises(HengeError) as refusal:
        profile.read_credential(contexts.profile("home"))
    assert refusal.value.code == "not_private"


def test_two_authorities_are_kept_and_the_one_that_signs_is_shown(tmp_path: Path) -> None:
    one = made(tmp_path / "henge").profile("home")
    ders = [b"\x30\x82\x00\x03new", b"\x30\x82\x00\x05older"]
    profile.write_credential(one.credential, identity_pem=b"pem", server_cas=ders, renew_after=5.0)

    assert list(profile.read_credential(one).server_cas) == ders
    assert profile.authority_of(one) == hashlib.sha256(ders[0]).hexdigest()
    (one.credential / profile.AUTHORITY_FILE).unlink()
    assert profile.authority_of(one) == "ab" * 32


def test_renewal_is_due_after_its_moment(tmp_path: Path) -> None:
    credential = profile.read_credential(made(tmp_path / "henge").profile("home"))

    assert not profile.renewal_is_due(credential, now=4.9)
    assert profile.renewal_is_due(credential, now=5.0)


def test_a_context_can_be_renamed_used_and_forgotten(tmp_path: Path) -> None:
    contexts = profile.rename(made(tmp_path / "henge"), "home", "casa")
    assert contexts.current == "casa"
    assert profile.use(contexts, "casa").current == "casa"

    left = profile.forget(contexts, "casa")
    assert (left.current, dict(left.profiles)) == ("", {})
    assert not (tmp_path / "henge/credentials/home").exists()
    assert profile.load(tmp_path / "henge").profiles == {}


def test_two_contexts_never_share_a_credential(tmp_path: Path) -> None:
    contexts = made(tmp_path / "henge")
    renamed = profile.rename(contexts, "home", "old")

    assert profile.credential_dir(renamed, "home") == tmp_path / "henge/credentials/home-2"


def test_a_folder_that_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    contexts = made(tmp_path / "henge")
    own = tmp_path / "precious"
    own.mkdir()
    moved = {"home": replace(contexts.profile("home"), credential=own)}

    profile.forget(replace(contexts, profiles=moved), "home")
    assert own.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("current = ", "is not TOML"),
        ("current = 5\n", "current is a text"),
        ("other = 5\n", "unknown key 'other'"),
        ("[contexts]\nhome = 5\n", "contexts.home is not a table"),
        ('[contexts.home]\nserver = "x"\n', "contexts.home.fleet is missing"),
        ('[contexts.home]\nserver = "http://x"\nfleet="f"\nca_fingerprint="a"\ncredential="c"\n', "its scheme is http"),
        ('[contexts.home]\nsrv = "x"\n', "unknown key 'srv'"),
        ('[contexts."../x"]\nserver = "x"\n', "not a table, or its name"),
        ("[a]\n[a]\n", "is not TOML"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.toml").write_text(text)

    with pytest.raises(HengeError) as refusal:
        profile.load(tmp_path)
    assert refusal.value.code == "bad_setting"
    assert words in refusal.value.message
    assert str(tmp_path / "config.toml") in refusal.value.message


def test_an_unknown_context_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(HengeError) as refusal:
        made(tmp_path / "henge").profile("work")
    assert "there are: home" in refusal.value.message
