from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from henge_protocol.beacon import Sighting
from henge_protocol.errors import HengeError, Invalid
from hengectl import profile
from hengectl.address import Address
from hengectl.find import Choice, Surroundings, choose, find, nothing_found
from hengectl.profile import Profile


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        monkeypatch.setattr("henge_protocol.places.SYSTEM_RUNTIME_DIR", Path(folder) / "run/henge")
        yield Path(folder)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def around(home: Path, **environ: str) -> Surroundings:
    return Surroundings({"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "user"), **environ}, lambda: 0.0)


def with_context(home: Path, *, current: bool) -> None:
    contexts = profile.load(home / ".config/henge")
    folder = profile.credential_dir(contexts, "casa")
    profile.write_credential(folder, identity_pem=b"pem", server_cas=[b"der"], renew_after=5.0)
    added = profile.add(contexts, Profile("casa", Address("henge.lan"), "f" * 26, "ab" * 32, folder))
    profile.save(added if current else profile.Contexts(added.path, "", added.profiles))


def test_options_count_more_than_variables_and_those_in_their_order() -> None:
    environ = {"HENGE_SERVER": "b", "HENGE_CONTEXT": "c"}

    assert choose(Choice(context="x"), {"HENGE_SOCKET": "a"}) == Choice(context="x")
    assert choose(Choice(), environ) == Choice(server="b")
    assert choose(Choice(), {"HENGE_SOCKET": "a", **environ}) == Choice(socket="a")
    assert choose(Choice(), {"HENGE_SOCKET": ""}) == Choice()
    with pytest.raises(Invalid):
        Choice(socket="a", server="b")


def test_the_systems_daemon_comes_before_the_users_own(home: Path) -> None:
    with listening(home / "user/henge/admin.sock"):
        assert find(Choice(), around(home)).label == str(home / "user/henge/admin.sock")
        with listening(home / "run/henge/admin.sock"):
            assert find(Choice(), around(home)).label == str(home / "run/henge/admin.sock")


def test_a_socket_whose_daemon_is_gone_is_passed_over(home: Path) -> None:
    with listening(home / "run/henge/admin.sock"):
        pass
    with listening(home / "user/henge/admin.sock"):
        assert find(Choice(), around(home)).label == str(home / "user/henge/admin.sock")

    with pytest.raises(HengeError) as refusal:
        find(Choice(), around(home))
    assert refusal.value.code == "no_daemon"
    assert f"nobody listens on {home}/run/henge/admin.sock" in refusal.value.message


@pytest.mark.skipif(os.getuid() == 0, reason="root may use every socket")
def test_a_socket_that_is_not_for_us_is_named_with_its_cure(home: Path) -> None:
    with listening(home / "run/henge/admin.sock"):
        (home / "run/henge/admin.sock").chmod(0)
        with pytest.raises(HengeError) as refusal:
            find(Choice(), around(home))
    assert refusal.value.code == "peer_denied"
    assert "usermod -aG henge" in refusal.value.cure


def test_the_current_context_comes_before_the_sockets(home: Path) -> None:
    with_context(home, current=True)
    with listening(home / "run/henge/admin.sock"):
        assert find(Choice(), Surroundings(around(home).environ, lambda: 0.0)).label == "https://henge.lan:4364"


def test_contexts_without_a_current_one_are_named(home: Path) -> None:
    with_context(home, current=False)

    with pytest.raises(HengeError) as refusal:
        find(Choice(), around(home))
    assert refusal.value.code == "no_such_context"
    assert "there are: casa" in refusal.value.message
    assert find(Choice(context="casa"), around(home)).label == "https://henge.lan:4364"
    assert find(Choice(server="henge.lan"), around(home)).label == "https://henge.lan:4364"


def test_a_server_nobody_logged_in_to_is_refused(home: Path) -> None:
    with pytest.raises(HengeError) as refusal:
        find(Choice(server="https://other.lan"), around(home))
    assert (refusal.value.code, refusal.value.cure) == ("certificate_required", "hengectl login https://other.lan:4364")


def test_a_lost_credential_is_told(home: Path) -> None:
    with_context(home, current=True)
    (home / ".config/henge/credentials/casa/identity.pem").unlink()

    with pytest.raises(HengeError) as refusal:
        find(Choice(), around(home))
    assert refusal.value.cure == "hengectl login https://henge.lan:4364"


def test_daemons_on_the_network_are_suggested_only() -> None:
    seen = [Sighting("kallisto", ("192.168.1.20",), 4364, "f" * 26, "7f3a91c25d080000")]
    error = nothing_found(seen)

    assert "kallisto   https://192.168.1.20:4364" in error.message
    assert error.cure == "hengectl login https://192.168.1.20:4364"
    assert nothing_found([Sighting("k", ("fe80::1",), 1, "", "")]).cure == "hengectl login https://[fe80::1]:1"
