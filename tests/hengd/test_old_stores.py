"""Data folders that earlier henges made: today's daemon opens each and finds everything that was in it."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hengd.records import FORMAT
from henge_protocol import pki
from henge_protocol.errors import Denied
from henge_protocol.keyfiles import make_private_dir, write_private, write_public
from henge_protocol.wire import Config, decode
from tests.data.make_store import PSK, STORES
from tests.service import Clock, Service, enrolment, verify_store

FOLDERS = sorted(STORES.glob("format-*"))
MAX_BYTES = 300_000
"""Of each: the repository stays small."""


def unpacked(folder: Path, data_dir: Path) -> dict[str, Any]:
    """Put the data folder there; what is said of it."""
    contents: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BytesIO((folder / "store.tar.gz").read_bytes())) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            place, data = data_dir / member.name, file.read()
            if place.name == "contents.json":
                contents = json.loads(data)
                continue
            for above in reversed(place.relative_to(data_dir).parents):
                make_private_dir(data_dir / above)
            (write_public if place.suffix == ".crt" else write_private)(place, data)
    return contents


def missing(was: Any, served: Any, where: str = "") -> list[str]:
    """Where something that was said is said no more, or otherwise; that more is said is no loss."""
    if isinstance(was, dict) and isinstance(served, dict):
        return [loss for key in was for loss in missing(was[key], served.get(key), f"{where}/{key}")]
    if isinstance(was, list) and isinstance(served, list) and len(was) == len(served):
        return [loss for at, item in enumerate(was) for loss in missing(item, served[at], f"{where}/{at}")]
    return [] if was == served else [f"{where}: {was!r} is {served!r}"]


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def contents(request: pytest.FixtureRequest, data_dir: Path, clock: Clock) -> dict[str, Any]:
    """What an old store holds that lies in the data folder, a minute after it was made."""
    found = unpacked(request.param, data_dir)
    clock.jump(found["made"] + 60 - time.time())
    return found


@pytest.fixture
async def opened(contents: dict[str, Any], data_dir: Path, clock: Clock) -> AsyncIterator[Service]:
    """Today's daemon on it."""
    service = Service(data_dir, clock)
    try:
        await service.start()
        try:
            yield service
        finally:
            await service.stop()
    finally:
        service.clean()
    verify_store(data_dir)


def test_each_format_of_the_store_has_a_stored_folder() -> None:
    """A new format needs one made by its own program: python -m tests.data.make_store."""
    assert {folder.name for folder in FOLDERS} == {f"format-{number}" for number in range(1, FORMAT + 1)}
    assert all((folder / "store.tar.gz").stat().st_size < MAX_BYTES for folder in FOLDERS)


async def test_everything_is_found(opened: Service, contents: dict[str, Any]) -> None:
    async with opened.admin() as admin:
        for path, was in contents["answers"].items():
            assert missing(was, await admin.ok("GET", path), path) == []
        for name, text in contents["documents"].items():
            assert (await admin.call("GET", f"/v1/devices/{name}/document")).body.decode() == text

    migrated = opened.app.migrated
    assert (migrated.before if migrated else FORMAT) == contents["format"]


async def test_its_devices_are_let_in_and_get_their_documents_with_secrets(
    opened: Service, contents: dict[str, Any]
) -> None:
    app, told = opened.app, contents["identities"]
    certificates = {name: base64.b64decode(one["certificate"]) for name, one in told.items()}
    caller = app.authority.identify(certificates["lamp-1"])
    contact = app.contacts.meet(caller, "192.0.2.1")
    desired, _ = contact.due_to("", fresh=True)
    assert desired is not None
    config = decode(contact.delivery(desired).frame)
    assert isinstance(config, Config)
    assert (caller.name, caller.subject) == ("lamp-1", told["lamp-1"]["id"])
    assert json.loads(config.document)["psk"] == PSK
    assert app.authority.identify(certificates["lamp-3"]).name == "desk-lamp"
    with pytest.raises(Denied) as refusal:
        app.authority.identify(certificates["lamp-4"])
    assert refusal.value.code == "certificate_revoked"


async def test_its_tokens_are_good_and_it_goes_on(opened: Service, contents: dict[str, Any]) -> None:
    before = contents["answers"]["/v1/devices"]["metadata"]
    async with opened.remote(verified=False) as stranger, opened.admin() as admin:
        joined = enrolment(contents["token"], pki.generate_key(), "late-lamp")
        assert (await stranger.ok("POST", "/v1/enrol", joined))["fleet"] == opened.app.authority.fleet
        await admin.set("lamp-9", color="blue")
        after = (await admin.ok("GET", "/v1/devices"))["metadata"]

    assert after["epoch"] == before["epoch"]
    assert after["revision"] > before["revision"]


def test_what_is_said_no_more_is_noticed() -> None:
    was = {"items": [{"name": "a", "values": {"x": 1}}]}

    assert missing(was, {"items": [{"name": "a", "values": {"x": 1, "y": 2}}], "more": 1}) == []
    assert missing(was, {"items": [{"name": "a", "values": {}}]}) == ["/items/0/values/x: 1 is None"]
    assert missing(was, {"items": []}) != []
