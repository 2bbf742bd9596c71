from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from henge_agent.configfile import Configured, read_configured
from henge_agent.settings import Output
from henge_protocol.errors import HengeError, Invalid

KNOWN = ("on_change", "health", "hook_timeout")
ME = pwd.getpwuid(os.getuid())


def read(tmp_path: Path, text: str) -> Configured:
    (tmp_path / "agent.toml").write_text(text, "utf-8")
    return read_configured(tmp_path / "agent.toml", KNOWN)


def test_options_and_outputs_are_read(tmp_path: Path) -> None:
    configured = read(
        tmp_path,
        f"""
        on_change = "systemctl restart lamp"
        [section.wifi]
        on_change = "wifi restart"
        [[output]]
        path = "/etc/lamp.toml"
        [[output]]
        path = "/etc/wifi.conf"
        format = "ini"
        field = "net.wifi"
        unmanaged = ["local", "a.b"]
        mode = "0600"
        owner = "{ME.pw_name}"
        [[output]]
        path = "/etc/unit"
        template = "/etc/unit.tmpl"
        """,
    )

    assert configured.options == {"on_change": "systemctl restart lamp"}
    assert configured.sections == {"wifi": "wifi restart"}
    assert configured.outputs == (
        Output(Path("/etc/lamp.toml"), "toml"),
        Output(
            Path("/etc/wifi.conf"),
            "ini",
            part=("net", "wifi"),
            unmanaged=(("local",), ("a", "b")),
            mode=0o600,
            owner=(ME.pw_uid, ME.pw_gid),
        ),
        Output(Path("/etc/unit"), "json", template=Path("/etc/unit.tmpl")),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "is not TOML"),
        ("on_chnge = 'x'", "on_chnge"),
        ("hook_timeout = 60", "hook_timeout: a text is expected"),
        ("section = 1", "section: a table for each field"),
        ("[section]\nwifi = 'x'", "section wifi: a table is expected"),
        ("[section.wifi]\nrun = 'x'", "section wifi: 'run' is unknown"),
        ("[section.wifi]", "section wifi on_change: a text is expected"),
        ("output = 1", "output: a table for each file"),
        ("output = [1]", "output 1: a table"),
        ("[[output]]", "output 1 has no path"),
        ("[[output]]\npath = 1", "a text of one line is expected"),
        ("[[output]]\npath = '/etc/x'\nmod = '0600'", "output 1: 'mod' is unknown"),
        ("[[output]]\npath = '/proc/x'", "/proc/x is not in a place for files"),
        ("[[output]]\npath = '/etc/x'\nformat = 'xml'", "format: a format is expected"),
        ("[[output]]\npath = '/etc/x'\nformat = []", "format: a format is expected"),
        ("[[output]]\npath = '/etc/x'\nmode = 640", "mode: a mode is expected"),
        ("[[output]]\npath = '/etc/x'\nmode = '4755'", "mode: a mode is expected"),
        ("[[output]]\npath = '/etc/x'\nowner = 'nobody-here'", "nobody-here"),
        ("[[output]]\npath = '/etc/x'\nowner = 'root:no-group'", "no-group"),
        ("[[output]]\npath = '/etc/x'\nfield = 'a..b'", "field: a field is expected"),
        ("[[output]]\npath = '/etc/x'\nunmanaged = 'a'", "unmanaged: a list of fields"),
        ("[[output]]\npath = '/etc/x'\ntemplate = 'x.tmpl'", "an absolute path is expected"),
        ("[[output]]\npath = '/etc/x'\ntemplate = '/x'\nformat = 'ini'", "neither format nor unmanaged"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read(tmp_path, text)

    assert refusal.value.code == "bad_setting"
    assert refusal.value.message.startswith(str(tmp_path / "agent.toml"))
    assert said in refusal.value.message


def test_f06_a_file_as_windows_editors_save_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xef\xbb\xbfon_change = 'x'\r\n[section.wifi]\r\non_change = 'y'")
    (tmp_path / "link.toml").symlink_to("agent.toml")
    configured = read_configured(tmp_path / "link.toml", KNOWN)

    assert (configured.options, configured.sections) == ({"on_change": "x"}, {"wifi": "y"})


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**33)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(os.mkfifo, "a pipe that nobody wrote to", id="F01 a pipe"),
        pytest.param(Path.mkdir, "neither a file nor a pipe", id="F01 a folder"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "neither a file nor a pipe", id="F01 a device"),
        pytest.param(lambda path: path.symlink_to(path), "is a symbolic link", id="F02 a link to itself"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "No such file", id="F02 a link to nothing"),
        pytest.param(make_huge, "more than", id="F04 8 GiB"),
        pytest.param(lambda path: path.write_text("a = 1", "utf-16"), "is not TOML", id="F06 UTF-16"),
        pytest.param(lambda path: path.write_bytes(b"a = 'caf\xe9'"), "is not TOML", id="F06 Latin-1"),
        pytest.param(lambda path: path.write_bytes(b"a = '\0'"), "is not TOML", id="F06 a zero byte"),
        pytest.param(lambda path: path.write_text("on_change = 1979-05-27"), "a text is expected", id="F08 a date"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_settings_file_is_named(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "agent.toml"
    make(path)
    with pytest.raises(HengeError, match=said) as refusal:
        read_configured(path, KNOWN)

    assert refusal.value.code in ("bad_setting", "bad_file")
    assert str(path) in refusal.value.message


def test_a_misspelled_key_has_its_neighbour_suggested(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refusal:
        read(tmp_path, "helth = 'x'")

    assert refusal.value.cure == "did you mean health?"
