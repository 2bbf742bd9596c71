"""Makes ``tests/data/stores/format-N/store.tar.gz``: a data folder of a daemon that did a bit of everything.

Run once for each format of the store, by the henge that introduces it: ``python -m tests.data.make_store``. What is
there already is never made again: a store that today's program made anew would prove nothing. All keys in it are
for tests. ``contents.json`` in the archive is what the daemon said of it all when it had just been started on it.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from hengd.records import FORMAT
from hengd.transactions import open_environment
from henge_protocol import __version__, pki
from tests.service import LAMP, Admin, Clock, Identity, Service, connected, device, enrolment, group, schema

STORES: Final = Path(__file__).parent / "stores"
KEPT: Final = ("data/ca/server-ca.crt", "data/ca/server-ca.key", "data/ca/client-ca.crt", "data/ca/client-ca.key",
               "data/revocations", "keys/secrets.key")  # fmt: skip
LISTS: Final = (
    "/v1/schemas", "/v1/groups", "/v1/devices", "/v1/secrets", "/v1/tokens", "/v1/operators", "/v1/joins",
    "/v1/revisions?limit=100&diff=1", "/v1/audit?since=0&limit=1000",
)  # fmt: skip
PSK: Final = "canary-in-the-store"
LONG_S: Final = 300 * 86400
NODE: Final = {
    "type": "object",
    "properties": {**LAMP["properties"], "psk": {"type": "string", "writeOnly": True}},  # type: ignore[dict-item]
}


async def live(service: Service, admin: Admin) -> dict[str, Identity]:
    """Do a bit of everything; the identities of devices."""
    await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": PSK})
    secret = {"psk": {"$secret": "wifi/home"}}
    await admin.apply(schema("node", **NODE), schema(), group("attic", "room=attic", 50, color="blue", **secret))
    lamps = [
        device("lamp-1", "node", {"room": "attic"}, brightness=5),
        device("lamp-2", labels={"room": "hall"}),
    ]
    await admin.ok("POST", "/v1/apply?set=git", {"objects": lamps, "message": "the lamps of the house"})
    joined = {name: await service.join(admin, name) for name in ("lamp-1", "lamp-2")}
    joined |= {name: await service.join(admin, name, schema="lamp") for name in ("lamp-3", "lamp-4")}
    await admin.ok("PATCH", "/v1/devices/lamp-1/overrides", {"set": {"brightness": 99}, "for_s": LONG_S})
    async with connected(service, joined["lamp-1"], client="old/1", facts={"model": "Pi"}) as link:
        await link.apply_next()
    async with connected(service, joined["lamp-2"], next_contact_s=3600) as link:
        await link.report(await link.config(), "rejected", reason="invalid")
    async with connected(service, joined["lamp-4"]):
        await admin.until("lamp-4", connection="online")
    await admin.ok("POST", "/v1/devices/lamp-4/revoke")
    await admin.ok("POST", "/v1/devices/lamp-3/rename", {"to": "desk-lamp"})
    await admin.set("desk-lamp", wifi={"ssid": "home", "channel": 6})
    await admin.ok("PUT", "/v1/groups/short-lived", group("short-lived", "room=attic", 60, brightness=1))
    await admin.ok("DELETE", "/v1/groups/short-lived")
    first = await admin.apply(device("lamp-9", color="red"))
    await admin.set("lamp-9", color="green")
    await admin.ok("POST", "/v1/rollback", {"to": first["revision"], "object": "device/lamp-9"})
    made = await admin.ok("POST", "/v1/tokens", {"kind": "admin", "name": "ada", "role": "editor"})
    async with service.remote() as stranger:
        await stranger.ok("POST", "/v1/login", enrolment(made["token"], pki.generate_key(), "ada"))
    return joined


async def described(service: Service, admin: Admin, joined: dict[str, Identity], token: str) -> dict[str, Any]:
    """What the daemon says of all this."""
    answers = {path: await admin.ok("GET", path) for path in LISTS}
    for answer in answers.values():
        answer.get("metadata", {}).pop("event_seq", None)  # events are kept in memory
    names = [item["metadata"]["name"] for item in answers["/v1/devices"]["items"]]
    for name in names:
        answers[f"/v1/devices/{name}/why"] = await admin.ok("GET", f"/v1/devices/{name}/why")
    for number in range(1, answers["/v1/devices"]["metadata"]["revision"] + 1):
        answers[f"/v1/revisions/{number}"] = await admin.ok("GET", f"/v1/revisions/{number}")
    return {
        "henge": __version__, "format": FORMAT, "made": service.clock.wall(), "answers": answers, "token": token,
        "identities": {
            name: {"id": one.id, "certificate": base64.b64encode(one.certificate).decode()}
            for name, one in joined.items()
        },
        "documents": {
            name: answer.body.decode()
            for name in names
            if (answer := await admin.call("GET", f"/v1/devices/{name}/document")).status == 200
        },
    }  # fmt: skip


async def make(folder: Path) -> dict[str, Any]:
    """Fill a data folder; what it holds, as a daemon says that was started on it anew."""
    service = Service(folder, Clock())
    await service.start()
    async with service.admin() as admin:
        joined = await live(service, admin)
        token = (await admin.ok("POST", "/v1/tokens", {"name": "late-*", "ttl_s": 30 * 86400, "uses": 2}))["token"]
    await service.restart()
    async with service.admin() as admin:
        found = await described(service, admin, joined, token)
    await service.stop()
    service.clean()
    return found


def archive(folder: Path, contents: dict[str, Any]) -> bytes:
    """The folder as an archive whose bytes depend on its content alone; the store in it is compact."""
    with tempfile.TemporaryDirectory() as copy:
        with closing(open_environment(folder / "data" / "db", 2**30)) as env:
            env.copy(copy, compact=True)
        members = {name: (folder / name).read_bytes() for name in KEPT}
        members["data/db/data.mdb"] = (Path(copy) / "data.mdb").read_bytes()
    members["contents.json"] = json.dumps(contents, sort_keys=True, ensure_ascii=False).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(members.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def main() -> None:
    """Make the store of today's format, if there is none."""
    place = STORES / f"format-{FORMAT}" / "store.tar.gz"
    if place.exists():
        raise SystemExit(f"{place} is there already, and stays")
    with tempfile.TemporaryDirectory() as folder:
        contents = asyncio.run(make(Path(folder) / "state"))
        place.parent.mkdir(parents=True)
        place.write_bytes(archive(Path(folder) / "state", contents))


if __name__ == "__main__":
    main()
