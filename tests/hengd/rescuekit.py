"""Devices that the store does not know: certificates of the daemon's own authority that it never listed."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

from henge_protocol import pki
from henge_protocol.model import digest_of
from henge_protocol.strictjson import canonical
from tests.service import Admin, Answer, Identity, Service


def certified(
    service: Service, name: str, *, device_id: str = "", key: bytes = b"", at: float = 0.0,
    lifetime_s: float = 90 * pki.DAY_S, role: str = "device", fleet: str = "",
) -> Identity:  # fmt: skip
    """A certificate that the client authority signed and that is on no list: of a store that is lost, or forged."""
    folder = service.data_dir / "data" / "ca"
    authority = pki.Authority(
        pki.certificate_der((folder / "client-ca.crt").read_bytes()), (folder / "client-ca.key").read_bytes()
    )
    key = key or pki.generate_key()
    subject = device_id or (pki.new_id(os.urandom(16)) if role == "device" else name)
    certificate = pki.issue_client(
        authority, pki.key_spki_der(key), fleet_id=fleet or service.app.authority.fleet,
        role="admin" if role == "admin" else "device", subject=subject, now=at or time.time(), lifetime_s=lifetime_s,
    )  # fmt: skip
    return Identity(name, subject, certificate, key)


def handing(name: str, document: Any, *, schema: Any = None, **more: Any) -> dict[str, Any]:
    """The body with which a device hands in what it runs."""
    data = document if isinstance(document, bytes) else canonical(document)
    body = {"name": name, "document": base64.b64encode(data).decode(), "digest": digest_of(data)}
    if schema is not None:
        body["schema"] = base64.b64encode(schema if isinstance(schema, bytes) else canonical(schema)).decode()
    return {**body, "epoch": "before", "revision": 57, "client": "henge-agent/1", **more}


async def hand_in(service: Service, identity: Identity | None, body: Any) -> Answer:
    """Hand it in from a fresh connection."""
    async with service.remote(identity) as device:
        return await device.call("POST", "/v1/device/rescue", body)


async def rescued(service: Service, name: str, document: Any, **more: Any) -> Identity:
    """A device that has handed in what it runs."""
    identity = certified(service, name)
    answer = await hand_in(service, identity, handing(name, document, **more))
    assert answer.status == 202, answer.body
    return identity


async def open_window(admin: Admin, open_s: int = 600, **more: Any) -> dict[str, Any]:
    """Let devices hand in what they run."""
    return dict(await admin.ok("PUT", "/v1/rescue-window", {"open_s": open_s, **more}))


async def waiting(admin: Admin) -> list[dict[str, Any]]:
    """What was handed in and not taken."""
    return list((await admin.ok("GET", "/v1/rescues"))["items"])


async def take(admin: Admin, *words: str, dry_run: bool = False, **more: Any) -> dict[str, Any]:
    """Take devices by name or id, or all."""
    body = {**({"devices": [{"device": word} for word in words]} if words else {}), **more}
    path = f"/v1/rescues/take{'?dry_run=1' if dry_run else ''}"
    return dict(await admin.ok("POST", path, body))


async def not_taken(admin: Admin, *words: str, **more: Any) -> Answer:
    """The refusal of taking them."""
    body = {**({"devices": [{"device": word} for word in words]} if words else {}), **more}
    return await admin.refused("POST", "/v1/rescues/take", body)
