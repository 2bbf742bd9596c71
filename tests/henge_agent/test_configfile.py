from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from henge_agent.configfile import Configured, read_configured
from henge_agent.settings import Output
from henge_protocol.errors import Invalid

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


def test_a_misspelled_key_has_its_neighbour_suggested(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refusal:
        read(tmp_path, "helth = 'x'")

    assert refusal.value.cure == "did you mean health?"
