"""Settings: every source, their order, and every wrong value told with its key and what would be right."""

from __future__ import annotations

import errno
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hengd.settings import (
    BY_KEY,
    SETTINGS,
    default_file,
    host_name,
    load_settings,
    settings_files,
    split_address,
    toml,
)  # fmt: skip
from henge_protocol.errors import Invalid
from henge_protocol.model import is_name


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(**sources: Any) -> Invalid:
    with pytest.raises(Invalid) as refused:
        load_settings(**sources)
    assert refused.value.code == "bad_setting"
    return refused.value


def test_without_any_source_everything_is_built_in() -> None:
    settings = load_settings()
    assert [one.origin for one in settings.values()] == ["built-in"] * len(SETTINGS)
    assert not any(one.changed for one in settings.values())
    assert (settings["listen.devices"], settings.seconds("join.window_after_init")) == ("0.0.0.0:4364", 3600)
    assert settings.bytes("store.map_size") == 1024**3
    assert settings.name == host_name()


def test_the_stronger_source_wins_and_is_named(tmp_path: Path) -> None:
    weak = written(
        tmp_path / "conf.d" / "10-a.toml", '[daemon]\nname = "a"\n[limits]\nhandshakes = 1\nper_address = 1\n'
    )
    mid = written(tmp_path / "conf.d" / "20-b.toml", '[daemon]\nname = "b"\n[limits]\nhandshakes = 2\n')
    main = written(tmp_path / "hengd.toml", '[daemon]\nname = "c"\n')
    settings = load_settings(
        files=settings_files(None, tmp_path),
        environ={"HENGE_DAEMON__NAME": "d", "HENGE_JOIN__MDNS": "false", "PATH": "/bin"},
        flags={"daemon.name": "e", "listen.local": None},
    )
    found = {one.setting.key: (one.value, one.origin) for one in settings.values()}
    assert found["daemon.name"] == ("e", "flag")
    assert found["join.mdns"] == (False, "HENGE_JOIN__MDNS")
    assert found["limits.handshakes"] == (2, str(mid))
    assert found["limits.per_address"] == (1, str(weak))
    assert found["listen.local"][1] == "built-in"
    assert load_settings(files=[weak, mid, main])["daemon.name"] == "c"


def test_a_file_named_by_the_user_replaces_the_default_file_and_must_exist(tmp_path: Path) -> None:
    default = written(tmp_path / "hengd.toml", "")
    drop_in = written(tmp_path / "conf.d" / "x.toml", "")
    named = tmp_path / "other.toml"
    assert settings_files(None, tmp_path) == [drop_in, default]
    assert settings_files(named, tmp_path) == [drop_in, named]
    assert settings_files(None, tmp_path / "nowhere") == []
    assert str(named) in refusal(files=[named]).message


def test_variables_of_the_client_are_no_settings() -> None:
    load_settings(
        environ={
            "HENGE_SOCKET": "/x",
            "HENGE_SERVER": "y",
            "HENGE_CONFIG": "z",
            "HENGE_DATA_DIR": "w",
            "HENGE_CYCLES": "3",
        }
    )


def test_every_key_can_be_set_by_its_variable_and_its_file(tmp_path: Path) -> None:
    for setting in SETTINGS:
        assert BY_KEY[setting.key] is setting
        text = ",".join(setting.default) if isinstance(setting.default, tuple) else str(setting.default).lower()
        if not isinstance(setting.default, bool | int):
            text = str(setting.default) if not isinstance(setting.default, tuple) else text
        if text:
            assert load_settings(environ={setting.variable: text})[setting.key] == setting.default
        table, _, name = setting.key.partition(".")
        file = written(tmp_path / "one.toml", f"[{table}]\n{name} = {toml(setting.default)}\n")
        assert load_settings(files=[file])[setting.key] == setting.default


WRONG: list[tuple[str, Any]] = [
    ("daemon.name", "Two Words"),
    ("daemon.name", 7),
    ("daemon.log_level", "loud"),
    ("daemon.log_format", "xml"),
    ("listen.devices", ""),
    ("listen.devices", "4364"),
    ("listen.devices", "0.0.0.0:65536"),
    ("listen.devices", "::1:4364"),
    ("listen.devices", "host:port"),
    ("listen.devices", "a b:1"),
    ("listen.devices", "user@host:1"),
    ("listen.devices", "[::1]"),
    ("listen.devices", 4364),
    ("listen.local", "x"),
    ("listen.socket", 5),
    ("listen.socket", "/run/a\nb"),
    ("listen.socket", "admin.sock"),
    ("tls.names", 5),
    ("tls.names", ["a", 5]),
    ("store.map_size", "big"),
    ("store.map_size", 5),
    ("store.map_size", "-1GiB"),
    ("store.allow_network_fs", "yes"),
    ("store.allow_network_fs", 1),
    ("store.keep_revisions", 9),
    ("store.keep_revisions", 1.5),
    ("store.keep_revisions", True),
    ("store.keep_revisions", "1e3"),
    ("store.keep_for", "soon"),
    ("store.keep_for", "-5s"),
    ("secrets.key_file", 5),
    ("secrets.key_file", "/etc/a\0b"),
    ("secrets.key_file", "../secrets.key"),
    ("join.window_after_init", 60),
    ("backup.folder", 5),
    ("backup.folder", "$HOME/backups"),
    ("backup.folder", "~nobody-of-that-name/backups"),
    ("backup.passphrase_file", ["a"]),
    ("backup.passphrase_file", "/etc/a\x1b[2Jb"),
    ("backup.every", "soon"),
    ("backup.keep", 0),
    ("join.max_pending", 0),
    ("join.max_pending", 33),
    ("join.mdns", "on"),
    ("limits.max_connections", 15),
    ("limits.max_connections", 65537),
    ("limits.per_address", 0),
    ("limits.handshakes", 4097),
    ("limits.handshakes_per_address", "many"),
    ("limits.retry_after", "2 weeks ago"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_told_with_key_value_and_meaning(key: str, value: Any) -> None:
    error = refusal(flags={key: value})
    assert error.message.startswith(f"flag: {key}: ")
    assert BY_KEY[key].meaning in error.cure


def test_every_setting_has_a_wrong_value_in_the_list() -> None:
    assert {key for key, _ in WRONG} == set(BY_KEY)


def test_an_unknown_key_is_told_with_a_guess(tmp_path: Path) -> None:
    file = written(tmp_path / "hengd.toml", '[listen]\ndevice = "0.0.0.0:1"\n')
    error = refusal(files=[file])
    assert "did you mean listen.devices?" in error.message
    assert str(file) in error.message
    assert "HENGE_LISTEN__DEVICE" in refusal(environ={"HENGE_LISTEN__DEVICE": "x"}).message
    assert "did you mean HENGE_LISTEN__DEVICES?" in refusal(environ={"HENGE_LISTEN_DEVICES": "x"}).message


@pytest.mark.parametrize(
    "text",
    [
        "[daemon\n",
        "name = 1\n",
        "[daemon]\nname = 'a'\nname = 'b'\n",
        "[a]\n[a]\n",
        "x = 99999999999999999999999\n",
        "[daemon.log]\nlevel = 'info'\n",
        "[limits]\nhandshakes = 2020-01-01\n",
    ],
)
def test_what_is_not_our_toml_is_refused(tmp_path: Path, text: str) -> None:  # F08
    file = written(tmp_path / "hengd.toml", text)
    assert str(file) in refusal(files=[file]).message


@pytest.mark.parametrize(
    ("path", "meant"),
    [("~/x y/", "/home/ada/x y/"), ("/srv/a/../b/", "/srv/a/../b/"), ("/srv/$HOME", "/srv/$HOME"), ("", "")],
)
def test_a_path_is_whole_or_begins_at_home(monkeypatch: pytest.MonkeyPatch, path: str, meant: str) -> None:  # F11
    monkeypatch.setenv("HOME", "/home/ada")

    assert load_settings(environ={"HENGE_BACKUP__FOLDER": path})["backup.folder"] == meant


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: None, id="F01 nothing"),
        pytest.param(os.mkfifo, id="F01 a pipe"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="F01 a device"),
        pytest.param(lambda path: path.symlink_to(path), id="F02 a link to itself"),
        pytest.param(lambda path: path.symlink_to("nowhere"), id="F02 a link to nothing"),
        pytest.param(lambda path: path.write_text("[daemon]", "utf-16"), id="F06 UTF-16"),
        pytest.param(lambda path: path.write_bytes(b"[daemon]\nname = 'a\0b'"), id="F06 a zero byte"),
    ],
)
def test_what_is_no_file_of_settings_is_refused_without_waiting(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "hengd.toml")

    assert str(tmp_path / "hengd.toml") in refusal(files=[tmp_path / "hengd.toml"]).message


def test_a_folder_of_settings_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's answer is played."""

    def closed(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", closed)
    with pytest.raises(Invalid, match="Permission denied") as refused:
        settings_files(None, tmp_path)

    assert refused.value.code == "bad_setting"


def test_a_file_of_settings_may_stand_behind_a_link(tmp_path: Path) -> None:  # F02
    written(tmp_path / "real.toml", "[daemon]\nname = 'a'")
    (tmp_path / "hengd.toml").symlink_to("real.toml")

    assert load_settings(files=[tmp_path / "hengd.toml"])["daemon.name"] == "a"


def test_files_that_cannot_be_are_refused(tmp_path: Path) -> None:  # F01, F04, F06
    large, latin, folder = tmp_path / "large.toml", tmp_path / "latin.toml", tmp_path / "folder.toml"
    large.write_bytes(b"#" * (1024 * 1024 + 1))
    latin.write_bytes("[daemon]\nname = 'caf\u00e9'\n".encode("latin-1"))
    folder.mkdir()
    for file in (large, latin, folder):
        assert str(file) in refusal(files=[file]).message
    bom = tmp_path / "bom.toml"
    bom.write_bytes(b"\xef\xbb\xbf[daemon]\r\nname = 'a'\r\n")
    assert load_settings(files=[bom])["daemon.name"] == "a"


def test_the_default_file_is_toml_with_every_key_at_its_default(tmp_path: Path) -> None:
    text = default_file()
    assert load_settings(files=[written(tmp_path / "as-it-is.toml", text)]).values() == load_settings().values()
    lines = [
        line.removeprefix("# ") if " = " in line and "#" in line[:1] and _is_entry(line) else line
        for line in text.splitlines()
    ]
    tree = tomllib.loads("\n".join(lines))
    found = {f"{table}.{name}": value for table, entries in tree.items() for name, value in entries.items()}
    assert found.keys() == BY_KEY.keys()
    uncommented = written(tmp_path / "all.toml", "\n".join(lines))
    assert not any(one.changed for one in load_settings(files=[uncommented]).values())


def _is_entry(line: str) -> bool:
    return line.removeprefix("# ").partition(" = ")[0] in {key.partition(".")[2] for key in BY_KEY}


@pytest.mark.parametrize(
    ("text", "address"),
    [("0.0.0.0:4364", ("0.0.0.0", 4364)), ("[::]:1", ("::", 1)), ("localhost:0", ("localhost", 0)),
     ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535))],
)  # fmt: skip
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


def test_the_hosts_name_is_always_a_name() -> None:
    assert is_name(host_name())
