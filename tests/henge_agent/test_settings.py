from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_agent.settings import (
    Address,
    Output,
    check_outputs,
    name_from_host,
    read_address,
    read_duration_s,
    read_output,
)
from henge_protocol.errors import Invalid
from henge_protocol.model import is_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("henge.lan", Address("henge.lan", 4364)),
        ("https://henge.lan", Address("henge.lan", 4364)),
        ("https://192.168.1.20:8443/", Address("192.168.1.20", 8443)),
        ("192.168.1.20:1", Address("192.168.1.20", 1)),
        ("HTTPS://[fe80::1%eth0]:65535", Address("fe80::1%eth0", 65535)),
        ("[::1]", Address("::1", 4364)),
    ],
)
def test_an_address_is_read(text: str, expected: Address) -> None:
    assert read_address(text) == expected


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert Address("::1", 4364).url("/v1/trust") == "https://[::1]:4364/v1/trust"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://henge.lan",
        "://henge.lan",
        "https://",
        "https://user@henge.lan",
        "https://henge.lan/v1",
        "henge.lan:0",
        "henge.lan:65536",
        "henge.lan:",
        "henge.lan:x",
        "henge.lan:٣",
        "::1",
        "[::1",
        "[::1]x",
        "hänge.lan",
        "henge lan",
        "-henge",
        "henge.lan?x",
        "a" * 300,
    ],
)
def test_what_is_no_address_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_address(text)

    assert refusal.value.code == "bad_usage"
    assert "https://HOST:4364" in refusal.value.cure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/etc/lamp.json", Output(Path("/etc/lamp.json"), "json")),
        ("/etc/lamp", Output(Path("/etc/lamp"), "json")),
        ("/etc/lamp.toml", Output(Path("/etc/lamp.toml"), "toml")),
        ("/etc/lamp.CFG", Output(Path("/etc/lamp.CFG"), "ini")),
        ("/srv/app/.env", Output(Path("/srv/app/.env"), "env")),
        ("/etc/lamp.yml", Output(Path("/etc/lamp.yml"), "yaml")),
        ("/etc/lamp.json:env", Output(Path("/etc/lamp.json"), "env")),
        ("/etc/a:b/lamp", Output(Path("/etc/a:b/lamp"), "json")),
    ],
)
def test_the_format_of_an_output_is_named_or_follows_from_the_suffix(text: str, expected: Output) -> None:
    assert read_output(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":json",
        "/etc/a\nb",
        "/etc/lamp:xml",
        "/proc/1/mem",
        "/sys/x",
        "/dev/sda",
        "/a/../dev/sda",
        "~no-such-user/x",
    ],
)
def test_an_output_that_is_no_place_for_a_file_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_output(text)

    assert refusal.value.code == "bad_usage"


def test_outputs_named_twice_or_in_the_agents_folder_are_refused(tmp_path: Path) -> None:
    one = read_output(f"{tmp_path}/one.json")

    assert check_outputs((one,), tmp_path / "state") == (one,)
    for wrong in ((one, one), (read_output(f"{tmp_path}/state/progress.json"),)):
        with pytest.raises(Invalid):
            check_outputs(wrong, tmp_path / "state")


def test_outputs_that_meet_behind_links_or_beside_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").mkdir()
    for link, target in (("link", "real"), ("alias", "state"), ("p", "/proc/self")):
        (tmp_path / link).symlink_to(target)

    def outputs(*names: str) -> tuple[Output, ...]:
        return tuple(read_output(f"{tmp_path}/{name}") for name in names)

    assert check_outputs(outputs("real/x", "link/y"), tmp_path / "state")
    for wrong in (
        ("real/x", "link/x"),
        ("alias/progress.json",),
        ("p/comm",),
        ("x", ".x.new"),
        ("link/.x.new", "real/x"),
    ):
        with pytest.raises(Invalid):
            check_outputs(outputs(*wrong), tmp_path / "state")
    with pytest.raises(Invalid):
        check_outputs(outputs("state/x"), tmp_path / "alias")


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("60", 60), ("1.5m", 90), ("500ms", 0.5), ("1h", 3600)])
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert read_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "1e9", "nan", "5x", "61m", "inf", " 5"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read_duration_s(text)


@given(st.text(max_size=100))
def test_a_name_made_of_a_host_name_is_a_name_or_empty(host: str) -> None:
    name = name_from_host(host)

    assert name == "" or is_name(name)


def test_a_hosts_name_becomes_a_name() -> None:
    assert name_from_host("Attic_Pi.fritz.box") == "attic-pi"
