"""``secret`` and what the other commands show of secrets: names, never values."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.termui
import pytest

from tests.hengectl.conftest import Face
from tests.service import Admin, Service, device, schema

VALUE = "Correct horse, battery"
NODE = {
    "type": "object",
    "properties": {"psk": {"type": "string", "minLength": 8, "writeOnly": True}, "pin": {"writeOnly": True}},
}


@pytest.fixture
async def person(face: Face, daemon: Service, admin: Admin) -> Face:
    """Somebody on the daemon's machine; a device has a secret."""
    face.environ(HENGE_SOCKET=str(daemon.socket))
    await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": VALUE})
    await admin.apply(schema("node", **NODE), device("one", "node", psk={"$secret": "wifi/home"}))
    return face


async def document(daemon: Service, name: str = "one") -> Any:
    """What the device really gets."""
    digest = daemon.app.configs.document(name).digest
    with daemon.app._store.read() as tx:
        return json.loads(daemon.app.vault.document(tx, digest) or b"")


@pytest.mark.parametrize(
    ("content", "options", "meant"),
    [
        pytest.param(b"another phrase", (), "another phrase", id="text"),
        pytest.param(b"another phrase\n", (), "another phrase", id="line-break"),
        pytest.param(b"another phrase\r\n", (), "another phrase", id="c16-crlf"),
        pytest.param(b" two lines\n of it\n\n", (), " two lines\n of it\n", id="lines"),
        pytest.param("Gr\u00fcnspecht im Wald".encode(), (), "Gr\u00fcnspecht im Wald", id="utf-8"),
        pytest.param(b"12345678", (), "12345678", id="digits-are-text"),
        pytest.param(b'"in quotes"\n', ("--json",), "in quotes", id="json"),
    ],
)
async def test_a_value_is_read_from_a_file_and_from_standard_input(
    person: Face, daemon: Service, tmp_path: Path, content: bytes, options: tuple[str, ...], meant: str
) -> None:
    (tmp_path / "value").write_bytes(content)
    ran = await person.run("secret", "set", "wifi/home", "--from-file", str(tmp_path / "value"), *options)
    from_file = await document(daemon)
    again = await person.run("secret", "set", "wifi/home", "--from-file", "-", *options, stdin=content)

    assert (ran.code, ran.out) == (0, "secret/wifi/home set (r3)\n")
    assert (again.code, again.out) == (0, "secret/wifi/home set (r3)\n"), "the same value is no change"
    assert from_file == await document(daemon) == {"psk": meant}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "empty", id="c16-empty"),
        pytest.param(b"\n", "empty", id="c16-line-break"),
        pytest.param(b"\xff\xfehunter", "not UTF-8", id="c16-binary"),
        pytest.param(b"\xef\xbb\xbfhunter22", "byte order mark", id="c16-bom"),
        pytest.param(b"hunter\0", "NUL", id="nul"),
        pytest.param(b"hunter", "the secret is not what the schema asks for here", id="too-short-for-the-schema"),
        pytest.param(b"hunter" * 2000, "8192", id="large"),
        pytest.param(b"hunter" * 20000, "larger", id="very-large"),
    ],
)
async def test_what_is_no_secret_is_refused_and_not_repeated(
    person: Face, daemon: Service, content: bytes, told: str
) -> None:
    ran = await person.run("--debug", "-v", "secret", "set", "wifi/home", "--from-file", "-", stdin=content)

    assert ran.code == 6
    assert "hunter" not in ran.err + ran.out
    assert told in ran.err
    assert await document(daemon) == {"psk": VALUE}


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda path: None, 3, id="F01 nothing"),
        pytest.param(os.mkfifo, 6, id="F01 a pipe"),
        pytest.param(Path.mkdir, 6, id="F01 a folder"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), 6, id="F01 a device"),
        pytest.param(lambda path: path.symlink_to(path), 6, id="F02 a link to itself"),
        pytest.param(lambda path: path.write_bytes(b"x" * 70_000), 6, id="F04 large"),
    ],
)
async def test_what_is_no_file_with_a_secret_is_refused_without_waiting(
    person: Face, daemon: Service, tmp_path: Path, make: Callable[[Path], object], code: int
) -> None:
    make(tmp_path / "value")
    ran = await person.run("secret", "set", "wifi/home", "--from-file", str(tmp_path / "value"))

    assert (ran.code, "Nothing was changed." in ran.err) == (code, True), ran
    assert await document(daemon) == {"psk": VALUE}


async def test_a_person_is_asked_twice_and_sees_nothing(
    person: Face, daemon: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(click.termui, "hidden_prompt_func", lambda text: asked.append(text) or "typed in secret")
    ran = await person.run("secret", "set", "wifi/home", terminal=True)

    assert (ran.code, len(asked)) == (0, 2)
    assert "typed in secret" not in ran.out + ran.err
    assert await document(daemon) == {"psk": "typed in secret"}


async def test_what_is_typed_and_is_not_utf_8_is_refused(
    person: Face, daemon: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed(_: str) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    for prompt in (typed, lambda _: "\udcff"):
        monkeypatch.setattr(click.termui, "hidden_prompt_func", prompt)
        ran = await person.run("secret", "set", "wifi/home", terminal=True)

        assert (ran.code, "what was typed is not UTF-8" in ran.err) == (6, True), ran
        assert await document(daemon) == {"psk": VALUE}


async def test_secrets_are_listed_with_their_users(person: Face) -> None:
    listed, got = await person.ok("secret", "list"), await person.ok("get", "secrets")

    assert re.sub(r" \d+s +", " ", listed) == re.sub(r" \d+s +", " ", got)  # a second may pass between the two
    assert listed.split("\n")[0].split() == ["NAME", "REVISION", "AGE", "AUTHOR", "USED", "BY"]
    assert "device/one" in listed
    assert (await person.ok("get", "secret/wifi/home", "-o", "name")).strip() == "secret/wifi/home"
    assert "secret/wifi/home created" in await person.ok("history", "secret/wifi/home")


async def test_people_read_the_name_of_a_secret_where_values_stand(person: Face, tmp_path: Path) -> None:
    await person.run("secret", "set", "wifi/lab", "--from-file", "-", stdin="of the laboratory")
    await person.ok("set", "device/one", "pin=secret/wifi/lab")
    (tmp_path / "one.json").write_text(
        json.dumps({"apiVersion": "henge/v1"} | device("one", "node", psk={"$secret": "wifi/lab"}))
    )
    why, diff = await person.ok("why", "one", "psk"), await person.run("diff", "-f", str(tmp_path))

    assert why.startswith("psk = secret wifi/home\n")
    assert "  ~ psk   secret wifi/home → secret wifi/lab\n" in diff.out
    assert "  ~ psk   secret wifi/home r1 → secret wifi/lab r3\n" in diff.out
    assert "  - pin   secret wifi/lab r3\n" in diff.out


async def test_a_secret_in_use_stays(person: Face) -> None:
    ran = await person.run("secret", "delete", "wifi/home", "--yes")

    assert ran.code == 5
    assert "device/one" in ran.err


async def test_differences_between_revisions_name_secrets(person: Face) -> None:
    await person.run("secret", "set", "wifi/home", "--from-file", "-", stdin="another phrase")
    between, history = await person.run("diff", "--rev", "2.."), await person.ok("history", "--diff", "--limit", "1")

    assert between.code == 1
    assert "secret/wifi/home configured" in between.out
    assert "  ~ psk   secret wifi/home r1 → secret wifi/home r3\n" in between.out
    assert "secret/wifi/home configured" in history
    assert "phrase" not in between.out + history
    alone = await person.run("diff", "secret/wifi/home", "--rev", "2..", "-o", "json")
    assert [one["kind"] for one in json.loads(alone.out)["objects"]] == ["Secret"]


async def test_an_override_takes_the_name_of_a_secret_and_nothing_else(person: Face, daemon: Service) -> None:
    await person.run("secret", "set", "wifi/lab", "--from-file", "-", stdin="of the laboratory")
    clear = await person.run("set", "device/one", "psk=in the clear", "--for", "10m")
    await person.ok("set", "device/one", "psk=secret/wifi/lab", "--for", "10m")
    described, why = await person.ok("describe", "device/one"), await person.ok("why", "one", "psk")

    assert clear.code != 0
    assert "in the clear" not in clear.out + clear.err
    assert await document(daemon) == {"psk": "of the laboratory"}
    assert "secret wifi/lab" in why
    assert "laboratory" not in described + why


async def test_a_reference_is_promoted_and_factored_as_one_value(person: Face, admin: Admin) -> None:
    await admin.apply(device("two", "node", psk={"$secret": "wifi/home"}))
    factored = await person.ok("factor", "--yes")
    why = await person.ok("why", "two", "psk")

    assert "secret wifi/home" in factored
    assert "group/all" in factored
    assert "secret wifi/home" in why
    assert "battery" not in factored


async def test_the_revision_that_forgot_a_secret_is_told(person: Face) -> None:
    await person.ok("secret", "set", "wifi/lab", "--from-file", "-", stdin=VALUE)

    assert await person.ok("secret", "delete", "wifi/lab", "--yes") == "secret/wifi/lab deleted (r4)\n"


async def test_an_empty_value_is_refused_in_one_sentence(person: Face) -> None:
    ran = await person.run("secret", "set", "wifi/lab", "--from-file", "-", stdin="")

    assert (ran.code, ran.err) == (6, "Error: the secret is empty\nNothing was changed.\n")


@pytest.mark.parametrize("for_a_while", [(), ("--for", "1h")], ids=["for-good", "override"])
async def test_a_reference_in_a_field_that_is_no_secret_is_refused_as_text(
    person: Face, admin: Admin, for_a_while: tuple[str, ...]
) -> None:
    await admin.apply(schema(), device("lamp-1"))
    named = await person.run("set", "device/lamp-1", "wifi.ssid=secret/wifi/home", *for_a_while)
    chosen = await person.run("set", "-l", "!room", "wifi.ssid=secret/wifi/home", "--for", "1h")

    assert (named.code, chosen.code) == (6, 6)
    assert "wifi.ssid is no secret in the schema: it would be the text secret/wifi/home" in named.err
    await person.ok("set", "device/lamp-1", "wifi.ssid=secret/of/life", *for_a_while)
    await person.ok("set", "device/lamp-1", "--json", 'wifi.ssid="secret/wifi/home"', *for_a_while)


@pytest.mark.parametrize(
    ("made", "code", "told"),
    [("pipe", 6, "empty"), ("device", 6, "neither a file nor a pipe"), ("folder", 6, "neither a file nor a pipe"),
     ("absent", 3, "No such file")],
)  # fmt: skip
async def test_a_value_is_not_waited_for(person: Face, tmp_path: Path, made: str, code: int, told: str) -> None:  # F01
    path = tmp_path / "value"
    if made == "pipe":
        os.mkfifo(path)
    elif made == "device":
        path.symlink_to("/dev/zero")
    elif made == "folder":
        path.mkdir()
    ran = await person.run("secret", "set", "wifi/home", "--from-file", str(path))

    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err
