"""The care of the authorities over the API: steps in and out of turn, who has followed, the key kept elsewhere."""

from __future__ import annotations

import base64
import io
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hengd import restore
from hengd.archive import SERVER_CA, SERVER_KEY, unpack
from hengd.records import pack
from hengd.rules.certificates import all_certificates
from hengd.rules.rotation import MAX_WITHIN_S
from hengd.store import Transaction
from henge_protocol import pki, sealedfile
from henge_protocol.joining import parse_token
from henge_protocol.sealedfile import read_header, unseal
from henge_protocol.tls import pinned_client_context
from tests.henge_agent.cutting import FullDisk
from tests.service import Admin, Clock, Identity, Service, connected, enrolment, raw_link

PASSPHRASE = "correct horse battery staple"
BEGIN, SWITCH, FINISH, CANCEL = (f"/v1/authorities/server/{step}" for step in ("begin", "switch", "finish", "cancel"))
BEGIN_CLIENT, FINISH_CLIENT = "/v1/authorities/client/begin", "/v1/authorities/client/finish"
REMOVE, IMPORT, REISSUE = (f"/v1/authorities/server/{act}" for act in ("remove-key", "import-key", "reissue"))
YEAR_S = 365 * pki.DAY_S


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealedfile, "_MEMORY_KIB", 32)
    monkeypatch.setattr(sealedfile, "_ITERATIONS", 1)


async def renewed(service: Service, identity: Identity) -> Identity:
    """The same device with the certificate that the daemon gives it now, not used yet."""
    async with service.remote(identity) as device:
        answer = await device.ok("POST", "/v1/renew", {})
    return Identity(identity.name, identity.id, base64.b64decode(answer["certificate"]), identity.key)


async def use(service: Service, identity: Identity) -> int:
    """Connect; within how many seconds the daemon wants the device to renew."""
    async with raw_link(service, identity) as link:
        within_s = (await link.hello()).renew_within_s
        await service.app._store.write(lambda tx: None)  # what was queued before is on disk
        return within_s


async def standing(admin: Admin, which: str = "server") -> tuple[str, list[str], int, int]:
    """Step, who is behind, how many devices have followed, of how many."""
    found = (await admin.ok("GET", "/v1/authorities"))[which]
    behind = [f"{one['kind']}/{one['name']}" for one in found["follow"]["behind"]]
    return found["step"], behind, found["follow"]["devices"], found["follow"]["devices_total"]


async def acts(admin: Admin) -> list[str]:
    """What the audit has of authorities."""
    records = (await admin.ok("GET", "/v1/audit"))["items"]
    found = [(one["what"], one["object"].partition("/")) for one in records]
    return [f"{what} {name}" for what, (kind, _, name) in found if kind == "authority"]


async def key_of(admin: Admin) -> tuple[str, bytes]:
    """Fingerprint and key of the server authority, from an export."""
    answer = await admin.call("POST", "/v1/authorities/export", {"passphrase": PASSPHRASE})
    assert answer.status == 200, answer.body
    file = io.BytesIO(answer.body)
    header = read_header(file.read)
    members = unpack(unseal(header, file.read, PASSPHRASE.encode()), None)
    assert (header.about["kind"], "epoch" in header.about) == ("authorities", False)
    return pki.fingerprint(pki.certificate_der(members[SERVER_CA])).hex(), members[SERVER_KEY]


def _forget_accounts(tx: Transaction) -> None:
    """Certificates as a henge listed them that knew no rotation."""
    for sha256, record in list(all_certificates(tx)):
        tx.put("certs", sha256, pack(msgspec.structs.replace(record, told=[], signed_by="")))


async def test_a_device_hears_of_the_next_authority_renews_and_is_counted_once_it_used_that(
    daemon: Service, admin: Admin
) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    assert await use(daemon, lamp) == 0
    async with connected(daemon, lamp) as link:
        assert (await admin.ok("POST", BEGIN, {"within_s": 3600}))["changed"]
        assert await link.gone() == 1001
    assert await use(daemon, lamp) == 3600
    assert await standing(admin) == ("introduced", ["device/lamp-1"], 0, 1)

    new = await renewed(daemon, lamp)
    assert await standing(admin) == ("introduced", ["device/lamp-1"], 0, 1)  # the answer may be lost
    assert await use(daemon, new) == 0
    assert await standing(admin) == ("introduced", [], 1, 1)
    assert (await admin.ok("GET", "/v1/authorities"))["next"][0].startswith("hengd ca rotate switch")


async def test_who_joins_meanwhile_is_told_of_both(daemon: Service, admin: Admin) -> None:
    await admin.ok("POST", BEGIN)
    token, key = (await admin.ok("POST", "/v1/tokens", {"name": "lamp-1"}))["token"], pki.generate_key()
    async with daemon.remote() as stranger:
        told = (await stranger.ok("GET", "/v1/trust"))["server_ca"]
        answer = await stranger.ok("POST", "/v1/enrol", enrolment(token, key, "lamp-1"))

    assert len(told) == 2
    assert answer["server_ca"] == told
    assert pki.fingerprint(base64.b64decode(told[0])) == parse_token(token).fingerprint
    assert await standing(admin) == ("introduced", [], 1, 1)


async def test_the_switch_waits_for_everybody_and_then_needs_no_restart(daemon: Service, admin: Admin) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    await use(daemon, lamp)
    pin = daemon.app.authority.pin
    old, port = daemon.app.authority.server_cas, daemon.port
    await admin.ok("POST", "/v1/tokens", {"name": "lamp-9"})
    await admin.ok("POST", BEGIN)
    refused = await admin.refused("POST", SWITCH)
    assert (refused.status, refused.code) == (409, "left_behind")
    assert [one["object"] for one in refused.json["errors"]] == ["device/lamp-1"]
    assert "--leave-behind" in refused.json["cure"]
    assert await standing(admin) == ("introduced", ["device/lamp-1"], 0, 1)

    new = await renewed(daemon, lamp)
    await use(daemon, new)
    assert await admin.ok("POST", SWITCH) == {"changed": True, "void_tokens": 1}
    assert daemon.app.authority.pin != pin
    assert daemon.port == port
    with pytest.raises(aiohttp.ClientConnectorCertificateError):  # who knows only the one before
        await shake_hands(daemon, pinned_client_context(old, new.pem, passed=time.time()))
    coming = daemon.app.authority.server_cas[:1]
    await shake_hands(daemon, pinned_client_context(coming, new.pem, passed=time.time()))
    assert await use(daemon, new) == 0


async def shake_hands(service: Service, context: ssl.SSLContext) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.get(f"{service.url}/v1/trust", server_hostname=service.server_name),
    ):
        pass


async def test_after_the_last_step_devices_forget_the_old_one(daemon: Service, admin: Admin) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    await use(daemon, lamp)
    await admin.ok("POST", BEGIN)
    lamp = await renewed(daemon, lamp)
    assert [await use(daemon, lamp), (await admin.ok("POST", SWITCH))["changed"], await use(daemon, lamp)] == [
        0,
        True,
        0,
    ]
    assert (await admin.ok("POST", FINISH))["changed"]

    assert await use(daemon, lamp) > 0
    async with daemon.remote(lamp) as device:
        assert len((await device.ok("POST", "/v1/renew", {}))["server_ca"]) == 1
    assert await standing(admin) == ("resting", [], 1, 1)
    assert await acts(admin) == [
        "authority.introduced server", "authority.switched server", "authority.dropped server",
    ]  # fmt: skip


async def test_what_is_given_up_before_the_switch_is_forgotten_by_devices(daemon: Service, admin: Admin) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    await use(daemon, lamp)
    await admin.ok("POST", BEGIN)
    lamp = await renewed(daemon, lamp)
    await use(daemon, lamp)
    assert (await admin.ok("POST", CANCEL))["changed"]

    assert await use(daemon, lamp) > 0
    assert await standing(admin) == ("resting", [], 1, 1)


OUT_OF_TURN: list[tuple[list[str], str, int | bool]] = [
    ([], SWITCH, 409),
    ([], FINISH, False),
    ([], CANCEL, False),
    ([BEGIN], BEGIN, False),
    ([BEGIN], FINISH, 409),
    ([BEGIN, CANCEL], CANCEL, False),
    ([BEGIN, CANCEL], SWITCH, 409),
    ([BEGIN, CANCEL], BEGIN, True),
    ([BEGIN, SWITCH], SWITCH, False),
    ([BEGIN, SWITCH], BEGIN, 409),
    ([BEGIN, SWITCH], CANCEL, 409),
    ([BEGIN, SWITCH, FINISH], FINISH, False),
    ([BEGIN, SWITCH, FINISH], SWITCH, 409),
    ([BEGIN, SWITCH, FINISH], CANCEL, False),
    ([BEGIN, SWITCH, FINISH], BEGIN, True),
    ([], FINISH_CLIENT, False),
    ([BEGIN_CLIENT], BEGIN_CLIENT, False),
    ([BEGIN_CLIENT, FINISH_CLIENT], FINISH_CLIENT, False),
    ([BEGIN_CLIENT, FINISH_CLIENT], BEGIN_CLIENT, True),
    ([BEGIN, BEGIN_CLIENT], SWITCH, True),
    ([BEGIN, SWITCH, BEGIN_CLIENT], FINISH, True),
]
"""What was done, what is asked for, and whether it is done, had been done, or is refused."""


@pytest.mark.parametrize(("before", "step", "outcome"), OUT_OF_TURN)
async def test_steps_out_of_turn_change_nothing_and_say_what_to_do(
    daemon: Service, admin: Admin, before: list[str], step: str, outcome: int | bool
) -> None:
    for one in before:
        assert (await admin.ok("POST", one))["changed"]
    files = {path.name: path.read_bytes() for path in (daemon.data_dir / "data" / "ca").iterdir()}
    noted = await acts(admin)
    answer = await admin.call("POST", step)

    if outcome is True:
        assert answer.json["changed"]
        return
    if outcome is False:
        assert answer.json == {"changed": False, "void_tokens": 0}
    else:
        assert (answer.status, answer.code) == (outcome, "rotation_step")
        assert "hengd ca rotate" in answer.json["cure"]
    assert {path.name: path.read_bytes() for path in (daemon.data_dir / "data" / "ca").iterdir()} == files
    assert await acts(admin) == noted


async def test_begun_again_with_another_time_devices_are_asked_anew(daemon: Service, admin: Admin) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    await use(daemon, lamp)
    await admin.ok("POST", BEGIN)
    assert await use(daemon, lamp) == 86_400
    await admin.ok("POST", BEGIN, {"within_s": 60})
    assert await use(daemon, lamp) == 60
    await admin.ok("POST", BEGIN)

    assert await use(daemon, lamp) == 60
    await daemon.restart()
    assert await use(daemon, lamp) == 60


async def test_an_operator_is_told_in_each_answer_until_he_has_renewed(daemon: Service, admin: Admin) -> None:
    token, key = (await admin.ok("POST", "/v1/tokens", {"kind": "admin", "name": "ada"}))["token"], pki.generate_key()
    async with daemon.remote() as stranger:
        answer = await stranger.ok("POST", "/v1/login", enrolment(token, key, "ada"))
    ada = Identity("ada", "ada", base64.b64decode(answer["certificate"]), key)
    async with daemon.remote(ada) as remote:
        assert "Henge-Renew" not in (await remote.call("GET", "/v1/whoami")).headers
        await admin.ok("POST", BEGIN)
        assert (await remote.call("GET", "/v1/whoami")).headers["Henge-Renew"] == "1"
    assert (await standing(admin))[1] == ["operator/ada"]
    async with daemon.remote(await renewed(daemon, ada)) as remote:
        assert "Henge-Renew" not in (await remote.call("GET", "/v1/whoami")).headers
    assert (await standing(admin))[1] == []
    assert "Henge-Renew" not in (await admin.call("GET", "/v1/whoami")).headers


async def test_certificates_from_before_anybody_kept_account_count_as_told_of_what_was_then(
    daemon: Service, admin: Admin
) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    await use(daemon, lamp)

    await daemon.app._store.write(_forget_accounts)
    assert await use(daemon, lamp) == 0
    assert await standing(admin) == ("resting", [], 1, 1)
    await admin.ok("POST", BEGIN)
    assert await use(daemon, lamp) > 0
    await admin.ok("POST", SWITCH, {"leave_behind": True})
    await admin.ok("POST", FINISH)
    assert await standing(admin) == ("resting", ["device/lamp-1"], 0, 1)
    assert await standing(admin, "client") == ("resting", [], 1, 1)


async def test_who_can_renew_no_more_holds_nobody_up(daemon: Service, admin: Admin, clock: Clock) -> None:
    for name in ("lamp-1", "lamp-2"):
        await use(daemon, await daemon.join(admin, name))
    await admin.ok("POST", "/v1/devices/lamp-2/revoke")
    clock.advance((90 + 181) * pki.DAY_S)
    await daemon.app.authority.timekeeper.note()
    await admin.ok("POST", BEGIN)

    assert await standing(admin) == ("introduced", [], 0, 0)
    assert (await admin.ok("POST", SWITCH))["changed"]


async def test_a_clock_that_is_ahead_by_years_leaves_nobody_behind(daemon: Service, admin: Admin, clock: Clock) -> None:
    await use(daemon, await daemon.join(admin, "lamp-1"))
    await admin.ok("POST", BEGIN)
    clock.jump(2 * YEAR_S)

    assert await standing(admin) == ("introduced", ["device/lamp-1"], 0, 1)
    assert (await admin.refused("POST", SWITCH)).code == "left_behind"
    await admin.ok("POST", SWITCH, {"leave_behind": True})
    clock.jump(-2 * YEAR_S)
    (advised,) = (await admin.ok("GET", "/v1/authorities"))["next"]
    assert advised.startswith("hengd ca rotate finish   # in 30 days:")


async def test_in_a_store_from_before_the_first_step_nobody_knows_the_next_authority(
    daemon: Service, admin: Admin
) -> None:
    await use(daemon, await daemon.join(admin, "lamp-1"))
    await admin.ok("POST", BEGIN)
    await daemon.app._store.write(_forget_accounts)

    assert await standing(admin) == ("introduced", ["device/lamp-1"], 0, 1)
    assert (await admin.refused("POST", SWITCH)).code == "left_behind"


async def test_the_client_authority_is_replaced_while_both_are_let_in(daemon: Service, admin: Admin) -> None:
    lamp, shelf = await daemon.join(admin, "lamp-1"), await daemon.join(admin, "shelf")
    for one in (lamp, shelf):
        await use(daemon, one)
    assert (await admin.ok("POST", BEGIN_CLIENT, {"within_s": 60}))["changed"]
    assert await use(daemon, shelf) == await use(daemon, lamp) == 60
    lamp = await renewed(daemon, lamp)
    assert await use(daemon, lamp) == 0
    assert await standing(admin, "client") == ("introduced", ["device/shelf"], 1, 2)
    refused = await admin.refused("POST", FINISH_CLIENT)
    assert (refused.code, [one["object"] for one in refused.json["errors"]]) == ("left_behind", ["device/shelf"])

    await daemon.restart()
    assert await use(daemon, shelf) == 60
    async with daemon.admin() as again:
        assert (await again.ok("POST", FINISH_CLIENT, {"leave_behind": True}))["changed"]
        assert await use(daemon, lamp) == 0
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await use(daemon, shelf)
        assert (await standing(again, "client"))[1] == ["device/shelf"]
        assert await acts(again) == ["authority.introduced client", "authority.dropped client"]


async def test_a_step_that_a_cut_kept_out_of_the_audit_is_there_after_the_next_start(
    daemon: Service, admin: Admin
) -> None:
    await admin.ok("POST", BEGIN)
    authorities = daemon.app._folder.authorities
    authorities.withdraw()
    await daemon.restart()
    async with daemon.admin() as again:
        await again.ok("POST", BEGIN_CLIENT)
    daemon.app._folder.authorities.drop_old("client")
    await daemon.restart()
    async with daemon.admin() as again:
        assert await acts(again) == [
            "authority.introduced server", "authority.withdrawn server", "authority.introduced client",
            "authority.dropped client",
        ]  # fmt: skip
        records = (await again.ok("GET", "/v1/audit"))["items"]
    assert [one["who"] for one in records if one["what"] in ("authority.withdrawn", "authority.dropped")] == [
        "hengd"
    ] * 2


@pytest.mark.parametrize("step", [BEGIN, BEGIN_CLIENT])
async def test_on_a_full_disk_nothing_begins(daemon: Service, admin: Admin, step: str) -> None:
    disk = FullDisk()
    daemon.app._folder.authorities._files = disk  # type: ignore[assignment]
    before = await admin.ok("GET", "/v1/authorities")
    refused = await admin.refused("POST", step)

    assert (refused.status, refused.code) == (507, "storage_full")
    assert await admin.ok("GET", "/v1/authorities") == before
    assert await acts(admin) == []
    disk.full = False
    assert (await admin.ok("POST", step))["changed"]


async def test_no_authority_is_made_by_a_clock_in_doubt(daemon: Service, admin: Admin, clock: Clock) -> None:
    clock.jump(-2 * YEAR_S)
    for step in (BEGIN, BEGIN_CLIENT):
        assert (await admin.refused("POST", step)).code == "clock_suspect"
    clock.jump(2 * YEAR_S)
    await admin.ok("POST", BEGIN)
    clock.jump(-2 * YEAR_S)
    assert (await admin.refused("POST", SWITCH)).code == "clock_suspect"
    clock.jump(2 * YEAR_S)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((step, {"within_s": within_s}) for step in (BEGIN, BEGIN_CLIENT)
          for within_s in (0, -1, True, "60", 1.5, MAX_WITHIN_S + 1, None)),
        *((step, {"leave_behind": yes}) for step in (SWITCH, FINISH_CLIENT) for yes in (1, "yes", None)),
        (FINISH, {"leave_behind": True}), (CANCEL, {"within_s": 1}), (BEGIN, []), (BEGIN, {"names": []}),
        (REMOVE, {}), (REMOVE, {"fingerprint": 7}), (IMPORT, {}), (IMPORT, {"key": "x" * 5000}), (REISSUE, {"key": 7}),
        ("/v1/authorities/export", {}), ("/v1/authorities/export", {"passphrase": "short"}),
    ],
)  # fmt: skip
async def test_wrong_bodies_are_refused(admin: Admin, path: str, body: Any) -> None:
    assert (await admin.refused("POST", path, body)).status == 422
    assert await acts(admin) == []


async def test_the_key_goes_only_to_who_has_it_and_comes_back(daemon: Service, admin: Admin) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    fingerprint, key = await key_of(admin)
    assert (await admin.refused("POST", REMOVE, {"fingerprint": "0" * 64})).code == "wrong_authority"
    assert (await admin.ok("POST", REMOVE, {"fingerprint": fingerprint}))["changed"]
    assert not (await admin.ok("POST", REMOVE, {"fingerprint": fingerprint}))["changed"]

    found = await admin.ok("GET", "/v1/authorities")
    assert found["server"]["authorities"][0]["key"] == "elsewhere"
    assert int(found["certificate"]["ends"][:4]) - int(found["certificate"]["due"][:4]) in (1, 2)
    assert not any(key in path.read_bytes() for path in (daemon.data_dir / "data" / "ca").iterdir())
    refused = await admin.refused("POST", "/v1/authorities/export", {"passphrase": PASSPHRASE})
    assert (refused.status, refused.code) == (409, "key_elsewhere")
    await daemon.restart()
    assert await use(daemon, lamp) == 0
    async with daemon.admin() as again:
        for path in (IMPORT, REISSUE):
            assert (await again.refused("POST", path, {"key": pki.generate_key().decode()})).code == "wrong_authority"
        assert (await again.refused("POST", REISSUE)).code == "key_elsewhere"
        assert (await again.ok("POST", REISSUE, {"key": key.decode()}))["changed"]
        assert (await again.ok("GET", "/v1/authorities"))["server"]["authorities"][0]["key"] == "elsewhere"
        assert (await again.ok("POST", IMPORT, {"key": key.decode()}))["changed"]
        assert not (await again.ok("POST", IMPORT, {"key": key.decode()}))["changed"]
        back = await again.ok("GET", "/v1/authorities")
        assert back["server"]["authorities"][0]["key"] == "here"
        assert int(back["certificate"]["ends"][:4]) == int(found["certificate"]["ends"][:4]) - 3
        assert await acts(again) == [
            "authority.exported server", "authority.key-removed server", "server-certificate.made server",
            "authority.key-imported server",
        ]  # fmt: skip


async def test_without_the_key_the_daemon_says_in_time_that_its_certificate_is_due(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    fingerprint, key = await key_of(admin)
    await admin.ok("POST", REMOVE, {"fingerprint": fingerprint})
    clock.advance(3 * YEAR_S)
    daemon.app.listeners.renew_context()
    assert (await admin.ok("GET", "/v1/status"))["warnings"] == []
    clock.advance(YEAR_S)
    daemon.app.listeners.renew_context()

    (warning,) = (await admin.ok("GET", "/v1/status"))["warnings"]
    assert "hengd ca reissue --from FILE" in warning
    assert (await admin.ok("GET", "/v1/authorities"))["next"][0].startswith("hengd ca reissue --from FILE")
    await daemon.restart()
    async with daemon.admin() as again:
        assert (await again.ok("GET", "/v1/status"))["warnings"] == [warning]
        await again.ok("POST", REISSUE, {"key": key.decode()})
        assert (await again.ok("GET", "/v1/status"))["warnings"] == []


async def test_an_authority_that_ends_is_told_in_time(daemon: Service, admin: Admin, clock: Clock) -> None:
    clock.advance(9.5 * YEAR_S)
    warnings = (await admin.ok("GET", "/v1/status"))["warnings"]

    assert ["hengd ca rotate begin --client" in one for one in warnings].count(True) == 1


async def test_a_rotation_brings_a_new_key_while_the_old_one_is_elsewhere(daemon: Service, admin: Admin) -> None:
    fingerprint, key = await key_of(admin)
    await admin.ok("POST", REMOVE, {"fingerprint": fingerprint})
    await admin.ok("POST", BEGIN)
    refused = await admin.refused("POST", REMOVE, {"fingerprint": fingerprint})
    assert refused.code == "rotation_step"
    assert (await admin.ok("POST", SWITCH))["changed"]
    assert (await admin.refused("POST", IMPORT, {"key": key.decode()})).code == "wrong_authority"
    assert (await admin.ok("POST", FINISH))["changed"]

    again, _ = await key_of(admin)
    assert again != fingerprint
    assert (await admin.ok("POST", REMOVE, {"fingerprint": again}))["changed"]
    await daemon.restart()


async def test_a_backup_without_the_key_is_a_daemon_elsewhere(
    daemon: Service, admin: Admin, clock: Clock, tmp_path: Path
) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    await use(daemon, lamp)
    fingerprint, _ = await key_of(admin)
    await admin.ok("POST", REMOVE, {"fingerprint": fingerprint})
    await admin.ok("POST", BEGIN)
    lamp = await renewed(daemon, lamp)
    await use(daemon, lamp)
    backup = (await admin.call("POST", "/v1/backup", {"passphrase": PASSPHRASE})).body
    done = _restored(backup, tmp_path)

    assert done.about["devices"] == 1
    other = Service(tmp_path / "other", clock)
    await other.start()
    try:
        async with other.admin() as there:
            assert await standing(there) == ("introduced", [], 1, 1)
            assert (await there.ok("GET", "/v1/authorities"))["server"]["authorities"][0]["key"] == "elsewhere"
            assert await use(other, lamp) == 0
            assert (await there.ok("POST", SWITCH))["changed"]
    finally:
        await other.stop()
        other.clean()


def _restored(backup: bytes, tmp_path: Path) -> restore.Restored:
    file = tmp_path / "henge.backup"
    file.write_bytes(backup)
    with file.open("rb") as stream:
        return restore.restore(stream, tmp_path / "other", PASSPHRASE.encode(), now=time.time(), allow_network_fs=False)
