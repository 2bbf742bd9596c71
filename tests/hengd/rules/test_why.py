"""Where values come from always agrees with the document; tried on any layers, by changing what each of them says."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.records import ObjectRecord, Origin
from hengd.rules import configs, why
from hengd.rules.merge import MISSING, get, leaves, merge, overlay
from hengd.rules.rendering import Layer
from hengd.rules.why import Explained, Said, explain
from henge_protocol.errors import NotFound
from henge_protocol.fieldpath import tokens
from tests.hengd.rules.conftest import Desk
from tests.service import LAMP, device, group, schema

KEYS = st.sampled_from("abc")
VALUES = st.recursive(
    st.none() | st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
LAYERS = st.lists(st.dictionaries(KEYS, VALUES, max_size=3), min_size=1, max_size=4)


def layered(*values: dict[str, Any]) -> list[Layer]:
    """Layers of these values, the weakest first."""
    return [Layer("group", f"g{number}", said) for number, said in enumerate(values)]


def with_value(values: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The values, and another one at the path."""
    patch: object = value
    for key in reversed(path):
        patch = {key: patch}
    changed = merge(values, patch)
    assert isinstance(changed, dict)
    return changed


@given(LAYERS)
def test_every_field_of_the_document_is_explained_with_its_value(values: list[dict[str, Any]]) -> None:
    document = overlay(values)

    assert {one.pointer: one.value for one in explain(layered(*values), {})} == dict(leaves(document))


@given(LAYERS)
def test_a_field_changes_with_its_winner_and_with_nobody_whom_it_shadows(values: list[dict[str, Any]]) -> None:
    for one in explain(layered(*values), {}):
        path = tokens(one.pointer)
        assert [said.wins for said in one.layers] == [True, *[False] * (len(one.layers) - 1)]
        for said in one.layers:
            number = int(said.name[1:])
            other = [with_value(was, path, "x") if n == number else was for n, was in enumerate(values)]
            assert (get(overlay(other), path) == "x") is said.wins


@given(LAYERS)
def test_the_winners_word_is_the_documents_value(values: list[dict[str, Any]]) -> None:
    for one in explain(layered(*values), {}):
        assert merge(MISSING, one.layers[0].value) == one.value
        assert not one.layers[0].removes


@given(LAYERS, st.lists(KEYS, min_size=1, max_size=3).map(tuple))
def test_a_field_that_is_not_there_is_explained_only_if_somebody_took_it_away(
    values: list[dict[str, Any]], path: tuple[str, ...]
) -> None:
    document, explained = overlay(values), explain(layered(*values), {}, path)
    if get(document, path) is not MISSING:
        assert explained
        assert all(tokens(one.pointer)[: len(path)] == path for one in explained)
    elif explained:
        assert [(one.present, one.layers[0].removes) for one in explained] == [(False, True)]


def test_an_object_is_explained_field_by_field() -> None:
    explained = explain(layered({"wifi": {"ssid": "a", "channel": 1}}, {"wifi": {"ssid": "b"}}), {}, ("wifi",))

    assert [(one.field, [(said.name, said.wins) for said in one.layers]) for one in explained] == [
        ("wifi", [("g1", True), ("g0", True)]),
        ("wifi.channel", [("g0", True)]),
        ("wifi.ssid", [("g1", True), ("g0", False)]),
    ]
    assert explained[0].value == {"ssid": "b", "channel": 1}


def test_an_item_of_a_list_belongs_to_whoever_set_the_list() -> None:
    record = ObjectRecord(kind="Group", name="g0", spec={"values": {}}, origins=[Origin(7, "ada", 5.0, ["/steps"])])
    layers = layered({"steps": [{"at": 1}, None]})

    (at,) = explain(layers, {("group", "g0"): record}, ("steps", "0", "at"))
    assert (at.value, at.layers) == (1, (Said("group", "g0", 1, False, 7, "ada", 5.0, True),))
    (null,) = explain(layers, {}, ("steps", "1"))
    assert (null.present, null.value, null.layers[0].removes) == (True, None, False)
    assert explain(layers, {}, ("steps", "2")) == []
    assert explain(layers, {}, ("steps", "x")) == []


def test_what_was_taken_away_names_who_did_it() -> None:
    (gone,) = explain(layered({"wifi": {"ssid": "a"}}, {"wifi": None}), {}, ("wifi", "ssid"))

    assert (gone.present, [(said.name, said.removes) for said in gone.layers]) == (
        False, [("g1", True), ("g0", False)],
    )  # fmt: skip


def said(explained: list[Explained], field: str) -> list[tuple[str, object, int, str, float]]:
    """What the layers say about a field, as a person sees it."""
    (one,) = [one for one in explained if one.field == field]
    return [(f"{by.layer}/{by.name}", by.value, by.revision, by.author, by.time) for by in one.layers]


async def test_each_layers_word_has_the_revision_author_and_time_of_that_field(desk: Desk) -> None:
    start = desk.now
    await desk.apply(schema(), group("hall", "room=hall", color="red"), device("lamp-1", labels={"room": "hall"}))
    desk.now += 10
    await desk.patch("Device/lamp-1", {"spec": {"values": {"color": "blue", "wifi": {"ssid": "a"}}}})
    desk.now += 10
    await desk.patch("Device/lamp-1", {"spec": {"values": {"wifi": {"ssid": "b"}}}})
    desk.now += 10
    await desk.patch("Group/hall", {"spec": {"values": {"brightness": 1}, "priority": 7}})
    explained = await desk.configs.why("lamp-1")

    assert said(explained, "color") == [
        ("device/lamp-1", "blue", 2, "ada", start + 10),
        ("group/hall", "red", 1, "ada", start),
        ("schema/lamp", "green", 1, "ada", start),
    ]
    assert said(explained, "wifi.ssid") == [("device/lamp-1", "b", 3, "ada", start + 20)]
    assert said(explained, "brightness")[0] == ("group/hall", 1, 4, "ada", start + 30)


async def test_a_name_of_a_field_that_nearly_exists_is_suggested(desk: Desk) -> None:
    await desk.apply(schema("lamp", **LAMP), device("lamp-1", color="red"))
    with pytest.raises(NotFound) as refusal:
        await desk.configs.why("lamp-1", "colour")

    assert refusal.value.cure == "did you mean color? See its fields: hengectl why lamp-1"
    with pytest.raises(NotFound):
        await desk.configs.why("lamp-1", "color.red")


async def test_why_is_found_out_beside_the_loop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device may have thousands of fields and a fleet a thousand groups."""
    threads: list[threading.Thread] = []

    def explain(*arguments: Any) -> list[Explained]:
        threads.append(threading.current_thread())
        return why.explain(*arguments)

    monkeypatch.setattr(configs, "explain", explain)
    await desk.apply(schema("lamp", **LAMP), device("lamp-1", color="red"))
    explained = await desk.configs.why("lamp-1", "color")

    assert [one.value for one in explained] == ["red"]
    assert threads[0] is not threading.main_thread()
