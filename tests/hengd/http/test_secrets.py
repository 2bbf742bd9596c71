"""Secrets over HTTP: values go in and do not come out, to whomever and however it is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from henge_protocol import pki
from henge_protocol.model import digest_of
from henge_protocol.wire import FieldError
from tests.hengd.http.joinkit import identity_in, spend, token_of
from tests.service import Admin, Clock, Service, connected, device, schema

VALUE = "Canary 9c1f of the tests"
NODE = {"type": "object", "properties": {"psk": {"type": "string", "writeOnly": True}, "note": {"type": "string"}}}


async def fleet(admin: Admin) -> None:
    await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": VALUE})
    await admin.apply(schema("node", **NODE), device("one", "node", psk={"$secret": "wifi/home"}))


async def test_a_secret_is_made_changed_shown_and_deleted(daemon: Service) -> None:
    async with daemon.admin() as admin:
        made = await admin.call("PUT", "/v1/secrets/wifi/home?message=new", {"value": VALUE})
        again = await admin.call("PUT", "/v1/secrets/wifi/home", {"value": VALUE + "!"})
        shown = await admin.call("GET", "/v1/secrets/wifi/home")
        listed = await admin.ok("GET", "/v1/secrets")
        gone = await admin.call("DELETE", "/v1/secrets/wifi/home", headers={"If-Match": shown.headers["ETag"]})
        missing = await admin.refused("GET", "/v1/secrets/wifi/home")

    assert (made.status, again.status, gone.status, missing.status) == (201, 200, 200, 404)
    assert missing.code == "no_such_secret"
    assert listed["items"] == [shown.json]
    assert shown.json["metadata"]["name"] == "wifi/home"
    assert shown.json["status"] == {"used_by": []}
    assert VALUE not in str([answer.body for answer in (made, again, shown, gone)])


async def test_the_device_gets_the_value_and_operators_its_name(daemon: Service) -> None:
    async with daemon.admin() as admin:
        await fleet(admin)
        identity = await daemon.join(admin, "one")
        async with connected(daemon, identity) as link:
            config = await link.config()
            await link.report(config)
        document = await admin.call("GET", "/v1/devices/one/document")

    assert json.loads(config.document) == {"psk": VALUE}
    assert document.json == {"psk": {"$secret": "wifi/home", "revision": 1}}
    assert document.headers["Henge-Redacted"] == "1"
    assert document.headers["ETag"] == f'"{config.digest}"'
    assert digest_of(document.body) != config.digest


async def test_a_new_value_reaches_a_connected_device(daemon: Service) -> None:
    async with daemon.admin() as admin:
        await fleet(admin)
        identity = await daemon.join(admin, "one")
        async with connected(daemon, identity) as link:
            await link.apply_next()
            await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": "the second one"})
            changed = await link.apply_next()
        events = await admin.ok("GET", "/v1/events?since=0")

    assert changed == {"psk": "the second one"}
    assert [event["kind"] for event in events["events"] if event.get("name") == "wifi/home"] == ["Secret", "Secret"]


async def test_w32_a_report_that_repeats_a_secret_is_kept_without_it(daemon: Service) -> None:
    async with daemon.admin() as admin:
        await fleet(admin)
        identity = await daemon.join(admin, "one")
        async with connected(daemon, identity) as link:
            config = await link.config()
            errors = (FieldError("", f"hook said: psk={VALUE}, bye"), FieldError("/psk", f"cut: {VALUE[:12]}"))
            await link.report(config, "rolled-back", reason="hook-failed", errors=errors)
        told = await admin.ok("GET", "/v1/devices/one")
        events = await admin.ok("GET", "/v1/events?since=0")

    assert VALUE[:12] not in json.dumps([told, events])
    assert told["status"]["reported"]["errors"] == [
        {"pointer": "", "message": "hook said: psk=[secret], bye"},
        {"pointer": "/psk", "message": "cut: [secret]"},
    ]


async def test_w32_facts_that_repeat_a_secret_are_kept_without_it(daemon: Service) -> None:
    async with daemon.admin() as admin:
        await fleet(admin)
        identity = await daemon.join(admin, "one")
        async with connected(daemon, identity, facts={"radio": f"on {VALUE}", "model": "pico"}) as link:
            await link.apply_next()
        told = await admin.ok("GET", "/v1/devices/one")

    assert told["status"]["facts"] == {"radio": "on [secret]", "model": "pico"}


async def test_viewers_read_everything_but_the_values_of_secrets(daemon: Service) -> None:
    async with daemon.admin() as admin:
        await fleet(admin)
        token, key = await token_of(admin, kind="admin", role="viewer"), pki.generate_key()
        identity = identity_in((await spend(daemon, token, key, "eve", "/v1/login")).json, key)
        async with daemon.remote(identity) as viewer:
            document = await viewer.call("GET", "/v1/devices/one/document")
            pages = [
                await viewer.call("GET", path)
                for path in (
                    "/v1/devices/one/why", "/v1/devices/one", "/v1/secrets", "/v1/secrets/wifi/home",
                    "/v1/revisions?diff=1", "/v1/revisions/1", "/v1/revisions/1/diff", "/v1/events?since=0",
                )
            ]  # fmt: skip

    assert document.json == {"psk": {"$secret": "wifi/home", "revision": 1}}
    assert [page.status for page in pages] == [200] * len(pages)
    assert not any(VALUE.encode() in page.body for page in pages)


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        pytest.param("Wifi", {"value": "x"}, 422, "bad_name", id="capital"),
        pytest.param("wifi//home", {"value": "x"}, 422, "bad_name", id="empty-word"),
        pytest.param("wifi/", {"value": "x"}, 422, "bad_name", id="ends-in-a-slash"),
        pytest.param("wifi/..%2f..", {"value": "x"}, 422, "bad_name", id="dots"),
        pytest.param("a%00b", {"value": "x"}, 422, "bad_name", id="nul"),
        pytest.param("a" * 64, {"value": "x"}, 422, "bad_name", id="long-word"),
        pytest.param("/".join(["aaaaaaa"] * 17), {"value": "x"}, 422, "bad_name", id="long"),
        pytest.param("wifi", {}, 422, "bad_object", id="no-value"),
        pytest.param("wifi", {"value": VALUE, "more": 1}, 422, "unknown_field", id="more"),
        pytest.param("wifi", [VALUE], 422, "bad_object", id="list"),
        pytest.param("wifi", {"value": ""}, 422, "bad_object", id="empty"),
        pytest.param("wifi", {"value": None}, 422, "bad_object", id="null"),
        pytest.param("wifi", {"value": {"$secret": "other"}}, 422, "bad_object", id="nested"),
        pytest.param("wifi", {"value": VALUE * 1000}, 413, "too_large", id="large"),
        pytest.param("wifi", {"value": VALUE * 10000}, 413, "too_large", id="larger-than-a-body"),
        pytest.param("wifi", b'{"value": "' + VALUE.encode() + b'\xff"}', 400, "bad_encoding", id="binary"),
        pytest.param("wifi", b'{"value": "\\ud800"}', 400, "bad_encoding", id="lone-surrogate"),
        pytest.param("wifi", b'{"value": "' + VALUE.encode(), 400, "bad_json", id="cut"),
    ],
)
async def test_bad_secrets_are_refused_and_not_repeated(
    daemon: Service, name: str, body: Any, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with daemon.admin() as admin:
        answer = await admin.refused("PUT", f"/v1/secrets/{name}", body)
        listed = await admin.ok("GET", "/v1/secrets")

    assert (answer.status, answer.code) == (status, code)
    assert VALUE.encode() not in answer.body
    assert VALUE not in caplog.text
    assert listed["items"] == []


async def test_f38_a_daemon_whose_key_is_gone_serves_the_rest_and_says_so(daemon: Service) -> None:
    key = daemon.data_dir / "keys" / "secrets.key"
    async with daemon.admin() as admin:
        await fleet(admin)
        await admin.apply(device("plain", "node", note="a"))
        one, plain = await daemon.join(admin, "one"), await daemon.join(admin, "plain")
    kept = key.read_bytes()
    key.unlink()
    await daemon.restart()
    async with daemon.admin() as admin:
        refused = await admin.refused("PUT", "/v1/secrets/wifi/home", {"value": "x"})
        status = await admin.ok("GET", "/v1/status")
        async with connected(daemon, plain) as link, connected(daemon, one) as waiting:
            await link.apply_next()
            await admin.set("plain", note="b")
            served = await link.apply_next()
            key.write_bytes(kept)
            key.chmod(0o600)
            await admin.set("one", note="c")
            unlocked = await waiting.apply_next()

    assert (refused.status, refused.code) == (503, "secrets_locked")
    assert "Retry-After" in refused.headers
    assert any("secrets are locked" in warning for warning in status["warnings"])
    assert served == {"note": "b"}
    assert unlocked == {"note": "c", "psk": VALUE}


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        pytest.param(b"", 0o600, "holds no key", id="empty"),
        pytest.param(b"c2hvcnQ=\n", 0o600, "5 bytes", id="short"),
        pytest.param(b"\xff" * 33, 0o600, "neither base64 nor hex", id="binary"),
        pytest.param(b"A" * 43 + b"=\n", 0o644, "0600", id="f03-readable"),
        pytest.param(b"A" * 43 + b"=\n", 0o600, "not the one", id="another"),
    ],
)
async def test_a_key_file_that_is_not_right_locks_secrets_and_is_not_touched(
    daemon: Service, content: bytes, mode: int, told: str
) -> None:
    key = daemon.data_dir / "keys" / "secrets.key"
    async with daemon.admin() as admin:
        await fleet(admin)
    key.write_bytes(content)
    key.chmod(mode)
    await daemon.restart()
    async with daemon.admin() as admin:
        refused = await admin.refused("PUT", "/v1/secrets/wifi/home", {"value": "x"})

    assert refused.code == "secrets_locked"
    assert told in refused.json["detail"]
    assert key.read_bytes() == content


async def test_the_key_that_is_made_is_private_and_beside_the_data(daemon: Service) -> None:
    key = daemon.data_dir / "keys" / "secrets.key"

    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert not list((daemon.data_dir / "data").rglob("*.key.*"))


async def test_a_rotated_key_file_is_taken_over_at_the_next_start(daemon: Service) -> None:
    key = daemon.data_dir / "keys" / "secrets.key"
    async with daemon.admin() as admin:
        await fleet(admin)
    old, new = key.read_bytes(), os.urandom(32).hex().encode() + b"\n"
    key.write_bytes(b"# new, then old\n" + new + old)
    await daemon.restart()
    key.write_bytes(new)
    await daemon.restart()
    async with daemon.admin() as admin:
        await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": "with the new key"})
        warnings = (await admin.ok("GET", "/v1/status"))["warnings"]

    assert not any("locked" in warning for warning in warnings)


async def test_no_answer_log_or_file_of_the_daemon_holds_a_secret_s6(
    daemon: Service, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bytes] = []
    async with daemon.admin() as admin:
        await fleet(admin)
        await admin.set("one", note="a")
        for method, path, body in (
            ("PATCH", "/v1/devices/one", {"spec": {"values": {"psk": VALUE}}}),
            ("PUT", "/v1/devices/two", device("two", "node", psk=VALUE)),
            ("POST", "/v1/apply", {"objects": [device("two", "node", psk=VALUE)]}),
            ("POST", "/v1/apply?dry_run=1", {"objects": [device("two", "node", psk={"$secret": VALUE})]}),
            ("PUT", "/v1/secrets/wifi/home?dry_run=1", {"value": VALUE + "2"}),
            ("POST", "/v1/rollback?dry_run=1", {"to": 1}),
            *(
                ("GET", path, None)
                for path in (
                    "/v1/secrets", "/v1/secrets/wifi/home", "/v1/devices", "/v1/devices/one", "/v1/devices/one/why",
                    "/v1/devices/one/document", "/v1/revisions", "/v1/revisions/1", "/v1/revisions/2",
                    "/v1/revisions/3", "/v1/events?since=0", "/v1/status",
                )
            ),
        ):  # fmt: skip
            told.append((await admin.call(method, path, body)).body)
    await daemon.stop()
    files = {path: path.read_bytes() for path in daemon.data_dir.rglob("*") if path.is_file()}
    await daemon.start()

    assert VALUE.encode() not in b"\n".join(told)
    assert VALUE not in caplog.text
    assert [path for path, content in files.items() if VALUE.encode() in content] == []
    assert any(path.name == "data.mdb" for path in files)


async def test_a_key_file_may_be_a_link_as_kubernetes_mounts_it(tmp_path: Path, data_dir: Path, clock: Clock) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "key").write_bytes(b"k" * 32)
    (tmp_path / "..data" / "key").chmod(0o440)
    (tmp_path / "key").symlink_to("..data/key")
    service = Service(data_dir, clock, {"secrets.key_file": str(tmp_path / "key")})
    await service.start()
    try:
        async with service.admin() as admin:
            await fleet(admin)
    finally:
        await service.stop()
        service.clean()

    assert not (data_dir / "keys").exists()
