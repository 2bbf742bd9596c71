"""From layers to documents: order, nulls, defaults, and why agrees with the document, whatever the layers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.records import ObjectRecord, Override
from hengd.rules.merge import leaves, same
from hengd.rules.rendering import MAX_ENDS, MAX_LAYERS, GroupEntry, Renderer, SchemaEntry
from hengd.rules.schemas import compile_schema
from henge_protocol.fieldpath import pointer
from henge_protocol.model import digest_of
from henge_protocol.selector import parse_selector
from henge_protocol.strictjson import canonical
from tests.hengd.rules.conftest import Desk
from tests.service import device, group, schema


class NoSecrets:
    """A store without any."""

    def find(self, name: str) -> tuple[int, object]:
        raise KeyError(name)

    def blinded(self, document: bytes) -> bytes:
        raise AssertionError("there is nothing to hide")


FIELDS = ("a", "b", "c")
OPEN = {"type": "object", "properties": {field: {} for field in FIELDS}}


def entry(root: dict[str, Any], name: str = "any", max_document: int = 16384) -> SchemaEntry:
    """A schema ready to use."""
    return SchemaEntry(name, compile_schema(name, root), max_document, 120)


def spoken(
    name: str,
    priority: int,
    values: dict[str, Any],
    selector: str = "",
    bound: str = "",
    overrides: tuple[Override, ...] = (),
) -> GroupEntry:
    """A group ready to use."""
    return GroupEntry(name, parse_selector(selector), priority, bound, values, overrides)


def overriding(pointer: str, value: Any, until: float = 1e9) -> Override:
    """An override of one field."""
    return Override(pointer=pointer, value=value, until=until, revision=1, author="ada", time=0.0, message="")


def record(values: dict[str, Any], labels: dict[str, str] | None = None, bound: str = "any") -> ObjectRecord:
    """A device's record."""
    return ObjectRecord(
        kind="Device", name="one", spec={"schema": bound, "values": values}, labels=labels or {}, id="1"
    )


def rendered(root: dict[str, Any], groups: list[GroupEntry], values: dict[str, Any]) -> Any:
    """The document of one device, which must be good."""
    import json

    document = Renderer({"any": entry(root)}, groups, NoSecrets()).render(record(values))
    assert document is not None
    assert document.code == "", document
    assert document.digest == digest_of(document.data)
    return json.loads(document.data)


def test_layers_speak_in_order_defaults_groups_by_rank_device() -> None:
    root = {"type": "object", "properties": {field: {"default": "schema"} for field in "abcd"}}
    groups = [
        spoken("high", 200, {"c": "high", "d": "high"}),
        spoken("low", 1, {"b": "low", "c": "low", "d": "low"}),
    ]

    assert rendered(root, groups, {"d": "device"}) == {"a": "schema", "b": "low", "c": "high", "d": "device"}


def test_a_null_removes_and_reaches_no_device() -> None:
    groups = [spoken("low", 1, {"a": {"x": 1, "y": 2}, "b": 1}), spoken("high", 2, {"a": {"x": None}, "b": None})]

    assert rendered(OPEN, groups, {"c": {"d": None, "e": {"f": None}}}) == {"a": {"y": 2}, "c": {"e": {}}}


def test_lists_replace_whole_and_keep_their_nulls() -> None:
    assert rendered(OPEN, [spoken("low", 1, {"a": [1, 2, 3]})], {"a": [None]}) == {"a": [None]}


def test_a_value_that_is_no_object_replaces_one_and_is_replaced_by_one() -> None:
    groups = [spoken("low", 1, {"a": {"x": 1}, "b": "text"}), spoken("high", 2, {"a": "text", "b": {"x": 1}})]

    assert rendered(OPEN, groups, {}) == {"a": "text", "b": {"x": 1}}


MQTT = {
    "type": "object",
    "properties": {
        "mqtt": {
            "type": "object",
            "properties": {"host": {"type": "string"}, "port": {"type": "integer", "default": 1883}},
            "required": ["host"],
        }
    },
}


@pytest.mark.parametrize(
    ("values", "document"),
    [
        pytest.param({}, {}, id="left-out"),
        pytest.param({"mqtt": {"host": "hub"}}, {"mqtt": {"host": "hub", "port": 1883}}, id="set"),
        pytest.param({"mqtt": {"host": "hub", "port": 1}}, {"mqtt": {"host": "hub", "port": 1}}, id="overridden"),
        pytest.param({"mqtt": {"host": "hub", "port": None}}, {"mqtt": {"host": "hub"}}, id="removed"),
        pytest.param({"mqtt": None}, {}, id="taken-away"),
    ],
)
def test_defaults_of_an_optional_object_hold_where_it_is_set(values: dict[str, Any], document: dict[str, Any]) -> None:
    assert rendered(MQTT, [], values) == document


def test_devices_that_share_everything_share_one_rendering() -> None:
    renderer = Renderer({"any": entry(OPEN)}, [spoken("all", 0, {"a": 1})], NoSecrets())

    assert renderer.render(record({})) is renderer.render(record({}, labels={"x": "y"}))
    assert renderer.render(record({"b": 1})) is not renderer.render(record({"b": 1.0}))


def test_a_device_whose_schema_is_gone_has_no_document() -> None:
    renderer = Renderer({}, [], NoSecrets())

    assert renderer.render(record({})) is None
    assert renderer.layers(record({})) == []


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        pytest.param({"a": 1}, {"a": 2}, "/a", id="values"),
        pytest.param({"a": 1}, {"a": 1}, "", id="equal"),
        pytest.param({"a": 1}, {"a": 1.0}, "/a", id="types"),
        pytest.param({"a": 1}, {"b": 1}, "", id="apart"),
        pytest.param({"a": {"x": 1}}, {"a": {"y": 1}}, "", id="side-by-side"),
        pytest.param({"a": {"x": 1}}, {"a": {"x": 2}}, "/a/x", id="inside"),
        pytest.param({"a": {"x": 1}}, {"a": 5}, "/a/x", id="object-and-value"),
        pytest.param({"a": None}, {"a": {"x": 1}}, "/a", id="null-and-inside"),
        pytest.param({"a": None}, {"a": None}, "", id="both-null"),
        pytest.param({"a": {}}, {"a": {"x": 1}}, "", id="empty-and-inside"),
        pytest.param({"a": {}}, {"a": 5}, "/a", id="empty-and-value"),
        pytest.param({"a": None}, {"a": {"x": {}}}, "/a", id="null-and-empty-inside"),
        pytest.param({"a": [1]}, {"a": [1, 2]}, "/a", id="lists"),
        pytest.param({}, {"a": 1}, "", id="nothing"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_groups_of_one_rank_clash_where_their_order_would_matter(
    one: dict[str, Any], other: dict[str, Any], clash: str, swapped: bool
) -> None:
    first, second = (other, one) if swapped else (one, other)
    document = Renderer({"any": entry(OPEN)}, [spoken("x", 5, first), spoken("y", 5, second)], NoSecrets()).render(
        record({})
    )

    assert document is not None
    assert document.code == ("conflicting_groups" if clash else "")
    assert not clash or document.problems[0].pointer.startswith("/a")


class Read(dict[str, Any]):
    """Values that count how often they are gone through."""

    times = 0

    def __iter__(self) -> Iterator[str]:
        Read.times += 1
        return super().__iter__()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> type[Read]:
    """Counts anew."""
    monkeypatch.setattr(Read, "times", 0)
    return Read


@pytest.mark.parametrize("count", [2, MAX_LAYERS - 2])
def test_groups_of_one_rank_are_read_once_however_many_they_and_their_devices_are(count: int, read: type[Read]) -> None:
    groups = [
        spoken(f"g{number}", 5, read(a=read({f"f{number}-{at}": at for at in range(9)}))) for number in range(count)
    ]
    renderer = Renderer({"any": entry(OPEN)}, groups, NoSecrets())
    for number in range(50):
        document = renderer.render(record({"b": number}, labels={"serial": str(number)}))
        assert document is not None
        assert document.code == ""

    assert read.times <= 2 * count


@pytest.mark.parametrize("count", [2, 20])
def test_overrides_of_groups_are_read_once_however_many_they_and_their_ends_are(count: int, read: type[Read]) -> None:
    groups = [
        spoken(f"g{number}", 5, {}, overrides=tuple(overriding(f"/a/g{number}-{at}", read(x=1), at) for at in range(3)))
        for number in range(count)
    ]
    renderer = Renderer({"any": entry(OPEN)}, groups, NoSecrets())
    for number in range(5):
        renderer.render(record({"b": number}))

    assert read.times <= 3 * count


class Judged:
    """A compiled schema that counts how many documents it validates."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._compiled = compile_schema("any", root)
        self.times = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def validate(self, value: object) -> Any:
        """Count."""
        self.times += 1
        return self._compiled.validate(value)


@pytest.mark.parametrize(("value", "times"), [(1, 1), (2, 2)])
def test_ends_of_overrides_after_which_nothing_differs_are_not_validated(value: int, times: int) -> None:
    judged = Judged(OPEN)
    overrides = tuple(overriding(f"/a/{at}", 1, until=1e9 + at) for at in range(9))
    groups = [spoken("g", 5, {"a": {str(at): 1 for at in range(9)}}, overrides=(*overrides, overriding("/b", value)))]
    said = [*groups, spoken("low", 1, {"b": 1})]
    document = Renderer({"any": SchemaEntry("any", judged, 16384, 120)}, said, NoSecrets()).render(record({}))

    assert document is not None
    assert (document.code, judged.times) == ("", times)


@pytest.mark.parametrize(("ends", "code"), [(MAX_ENDS, ""), (MAX_ENDS + 1, "too_complex")])
def test_overrides_of_all_groups_together_end_at_so_many_moments_at_most(ends: int, code: str) -> None:
    groups = [
        spoken(f"g{at}", 5, {}, overrides=(overriding(f"/a/{at}", 1, until=at), overriding(f"/b/{at}", 1, until=at)))
        for at in range(ends)
    ]
    document = Renderer({"any": entry(OPEN)}, groups, NoSecrets()).render(record({}))

    assert document is not None
    assert document.code == code


# ---- any layers ---------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, -0.0, 1.0, "", "x"])
keys = st.sampled_from([*FIELDS, "d.e", "f/g", "h~i"])
values = st.recursive(
    scalars | st.lists(scalars, max_size=2), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
layers = st.dictionaries(st.sampled_from(FIELDS), values, max_size=3)


def model(stack: list[dict[str, Any]]) -> dict[tuple[str, ...], Any]:
    """Leaf by leaf, the slow way: each layer first wipes what it stands on, then writes its leaves."""
    found: dict[tuple[str, ...], Any] = {}
    for layer in stack:
        _say(found, (), layer)
    return found


def _say(found: dict[tuple[str, ...], Any], path: tuple[str, ...], said: Any) -> None:
    if isinstance(said, dict):
        if path and found.get(path, {}) != {}:
            _wipe(found, path)
        for above in [path[:length] for length in range(1, len(path))]:
            found.pop(above, None)
        if path and not any(other[: len(path)] == path for other in found):
            found[path] = {}
        for key, inner in said.items():
            _say(found, (*path, key), inner)
        return
    _wipe(found, path)
    if said is not None:
        for above in [path[:length] for length in range(1, len(path))]:
            found.pop(above, None)
        found[path] = said
    elif len(path) > 1 and not any(other[: len(path) - 1] == path[:-1] for other in found):
        found[path[:-1]] = {}


def _wipe(found: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> None:
    for other in [other for other in found if other[: len(path)] == path]:
        del found[other]


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every leaf of a document."""
    if isinstance(value, dict) and (value or not path):
        return {where: leaf for key in value for where, leaf in leaves_of(value[key], (*path, key)).items()}
    return {path: value}


@given(st.lists(layers, max_size=4), layers)
def test_any_layers_merge_as_a_slow_model_says(stack: list[dict[str, Any]], own: dict[str, Any]) -> None:
    groups = [spoken(f"g{rank}", rank, said) for rank, said in enumerate(stack)]
    document = rendered(OPEN, groups, own)

    assert canonical(sorted(map(repr, leaves_of(document).items()))) == canonical(
        sorted(map(repr, model([*stack, own]).items()))
    )


@given(st.lists(layers, max_size=4), st.permutations([0, 1, 2, 3]))
def test_the_order_in_which_groups_are_stored_does_not_matter(stack: list[dict[str, Any]], order: list[int]) -> None:
    groups = [spoken(f"g{rank}", rank, said) for rank, said in enumerate(stack)]
    mixed = [groups[index] for index in order if index < len(groups)]

    assert canonical(rendered(OPEN, mixed, {})) == canonical(rendered(OPEN, groups, {}))


@given(layers, layers)
def test_groups_of_one_rank_that_are_accepted_commute(one: dict[str, Any], other: dict[str, Any]) -> None:
    pairs = [(("x", one), ("y", other)), (("x", other), ("y", one))]
    found = [
        Renderer({"any": entry(OPEN)}, [spoken(name, 5, said) for name, said in pair], NoSecrets()).render(record({}))
        for pair in pairs
    ]

    assert found[0] is not None
    assert found[1] is not None
    assert (found[0].code, found[0].data) == (found[1].code, found[1].data)


def clash(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two groups' values contradict each other: the definition, pair of fields by pair of fields."""
    if not one or not other:
        return False
    for path, value in leaves(one):
        for where, said in leaves(other):
            if (
                (where == path and not same(said, value))
                or (where.startswith(path + "/") and value != {})
                or (path.startswith(where + "/") and said != {})
            ):
                return True
    return False


named = st.lists(st.tuples(st.sampled_from("uvw"), st.integers(1, 2), layers), max_size=5, unique_by=lambda one: one[0])


@given(named)
def test_any_groups_clash_where_two_of_one_rank_contradict_each_other(said: list[tuple[str, int, Any]]) -> None:
    renderer = Renderer({"any": entry(OPEN)}, [spoken(*one) for one in said], NoSecrets())
    document = renderer.render(record({}))
    guilty = {
        tuple(sorted((one[0], other[0])))
        for one, other in combinations(said, 2)
        if one[1] == other[1] and clash(one[2], other[2])
    }

    assert document is not None
    assert (document.code == "conflicting_groups") == bool(guilty)
    assert not guilty or _named(document.problems[0].message) in guilty


paths = st.lists(keys, min_size=1, max_size=3).map(lambda path: ("a", *path))
overrides = st.lists(st.tuples(st.sampled_from("uvw"), paths, values), max_size=6)


@given(overrides)
def test_any_overrides_clash_where_those_of_two_groups_contradict_each_other(
    said: list[tuple[str, tuple[str, ...], Any]],
) -> None:
    by_group = {name: [(path, value) for one, path, value in said if one == name] for name in sorted("uvw")}
    groups = [
        spoken(name, 5, {}, overrides=tuple(overriding(pointer(path), value) for path, value in made))
        for name, made in by_group.items()
    ]
    document = Renderer({"any": entry(OPEN)}, groups, NoSecrets()).render(record({}))
    guilty = {
        (one, other)
        for one, other in combinations(sorted(by_group), 2)
        for path, value in by_group[one]
        for where, known in by_group[other]
        if clash(_nested(path, value), _nested(where, known))
    }

    assert document is not None
    assert (document.code == "conflicting_groups") == bool(guilty)
    assert not guilty or _named(document.problems[0].message) in guilty


def _named(message: str) -> tuple[str, str]:
    words = [word.removeprefix("group/") for word in message.split()]
    return words[0], words[2]


def _nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


async def test_why_agrees_with_the_document_whatever_the_layers(desk: Desk) -> None:
    await desk.apply(schema("any", **OPEN), device("one", bound="any"))
    samples: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []

    @given(st.lists(layers, max_size=3), layers)
    def collect(stack: list[dict[str, Any]], own: dict[str, Any]) -> None:
        samples.append((stack, own))

    collect()
    for stack, own in samples[:60]:
        said = [group(f"g{rank}", priority=rank + 1) for rank in range(3)]
        for one, values_ in zip(said, stack, strict=False):
            one["spec"]["values"] = values_
        await desk.apply(*said, {**device("one"), "spec": {"schema": "any", "values": own}})
        told = {one.pointer: one for one in await desk.configs.why("one")}
        document = leaves_of(desk.document("one"))

        assert {pointer: repr(one.value) for pointer, one in told.items()} == {
            "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path): repr(leaf)
            for path, leaf in document.items()
        }
        assert all(
            one.layers[0].wins and repr(one.layers[0].value) == repr(one.value)
            for one in told.values()
            if one.value != {}
        )


async def test_v23_a_device_has_at_most_16_layers(desk: Desk) -> None:
    groups = [group(f"g-{number:02}", "room=attic", priority=number, brightness=1) for number in range(1, 15)]
    await desk.apply(schema(), device("lamp-1", labels={"room": "attic"}, color="red"), *groups)
    refusal = await desk.refused(group("one-more", "room=attic", color="blue"))

    assert refusal.code == "too_many_layers"
    assert "lamp-1" in refusal.message
    assert "g-01, g-02" in refusal.message
    assert refusal.extra["devices"] == ["lamp-1"]


async def test_a_group_that_says_nothing_to_a_device_is_no_layer_of_it(desk: Desk) -> None:
    other = schema("radio", type="object", properties={"volume": {"type": "integer"}})
    groups = [group(f"g-{number:02}", "room=attic", priority=number, volume=1) for number in range(1, 41)]
    silent = [group(f"s-{number:02}", "room=attic") for number in range(40)]
    await desk.apply(schema(), other, device("lamp-1", labels={"room": "attic"}, color="red"), *groups, *silent)

    assert desk.document("lamp-1")["color"] == "red"
