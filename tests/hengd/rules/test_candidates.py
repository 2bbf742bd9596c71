"""Documents that devices would get by a change that is not made; on a real store, without HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hengd.rules import candidates
from hengd.rules.candidates import Candidate, Candidates
from hengd.rules.changes import Changes
from hengd.rules.configs import MAX_MESSAGE_CHARS, Request
from hengd.rules.ownership import Writer
from hengd.rules.schemas import SchemaCache
from henge_protocol.errors import HengeError
from henge_protocol.model import digest_of
from henge_protocol.selector import parse_selector
from tests.hengd.rules.conftest import ADA, NOW, Desk
from tests.service import LAMP, device, group, schema


def of(desk: Desk) -> Candidates:
    return Candidates(desk.store, Changes(SchemaCache(), desk.vault, lambda: NOW, lambda: "0" * 26))


async def found(desk: Desk, *objects: dict[str, Any], selector: str = "", **request: Any) -> list[Candidate]:
    """What ``Candidates`` makes of these objects; the store is as before."""
    before = desk.everything()
    try:
        return await of(desk).of(objects, parse_selector(selector), Request(ADA, dry_run=True, **request))
    finally:
        assert desk.everything() == before


@pytest.fixture
async def lamps(desk: Desk) -> Desk:
    await desk.apply(
        schema(), group("hall", "room=hall", color="red"),
        device("lamp-1", labels={"room": "hall"}), device("lamp-2", labels={"room": "hall", "kind": "desk"}),
        device("lamp-3"),
    )  # fmt: skip
    return desk


async def test_only_devices_that_would_get_another_document_have_a_candidate(lamps: Desk) -> None:
    blue = await found(lamps, group("hall", "room=hall", color="blue"))

    assert [one.name for one in blue] == ["lamp-1", "lamp-2"]
    for one in blue:
        assert json.loads(one.document)["color"] == "blue"
        assert (one.digest, one.schema != "") == (digest_of(one.document), True)
    assert await found(lamps, group("hall", "room=hall", color="red")) == []


async def test_a_selector_chooses_among_them_and_the_limit_counts_what_is_chosen(
    lamps: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MAX_CANDIDATES", 1)
    blue = group("hall", "room=hall", color="blue")
    with pytest.raises(HengeError, match="2 devices would get another document, at most 1") as refused:
        await found(lamps, blue)

    assert refused.value.code == "too_complex"
    assert [one.name for one in await found(lamps, blue, selector="kind=desk")] == ["lamp-2"]


async def test_a_schema_that_changes_with_its_devices_is_not_named(lamps: Desk) -> None:
    wider = {**LAMP, "properties": {**LAMP["properties"], "tone": {"default": 1}}}
    now = await found(lamps, device("lamp-3", color="blue"))
    then = await found(lamps, schema("lamp", **wider))

    assert [one.schema != "" for one in now] == [True]
    assert [one.schema for one in then] == ["", "", ""]


async def test_what_apply_refuses_is_refused(lamps: Desk) -> None:
    await lamps.configs.apply([device("lamp-3", color="red")], [], Request(ADA, writer=Writer("git")))
    blue = device("lamp-3", color="blue")
    for objects, request, code in (
        ([device("lamp-3", color=7)], {}, "does_not_fit"),
        ([blue], {}, "managed"),
        ([blue], {"fleet": "other:1"}, "stale"),
        ([blue], {"message": "x" * (MAX_MESSAGE_CHARS + 1)}, "bad_parameter"),
    ):
        with pytest.raises(HengeError) as refused:
            await found(lamps, *objects, **request)
        assert refused.value.code == code

    for writer in (Writer("git"), Writer(take_over=True)):
        assert [one.name for one in await found(lamps, blue, writer=writer)] == ["lamp-3"]


async def test_texts_of_secrets_are_known_of_a_candidate(desk: Desk) -> None:
    network = {"type": "object", "properties": {"psk": {"type": "string", "writeOnly": True}, "ssid": {}}}
    await desk.configs.put_secret("wifi/home", "correct horse", None, Request(ADA))
    [one] = await found(desk, schema("net", **network), device("one", "net", ssid="den", psk={"$secret": "wifi/home"}))

    assert json.loads(one.document) == {"psk": "correct horse", "ssid": "den"}
    assert "correct horse" in str(one.secrets)
