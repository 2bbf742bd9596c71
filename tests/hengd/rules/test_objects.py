"""Manifests: complete after reading, every fault named at once, the same read back as written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.records import ObjectRecord
from hengd.rules.objects import Manifest, manifest_of, object_path, parse_manifest, parse_object_path
from henge_protocol.errors import HengeError, Invalid

DEVICE = {"kind": "Device", "metadata": {"name": "lamp-1"}, "spec": {}}


def refusal_of(value: object, **path: str) -> HengeError:
    """How a manifest is refused."""
    with pytest.raises(Invalid) as refusal:
        parse_manifest(value, **path)
    return refusal.value


@pytest.mark.parametrize(
    ("kind", "spec", "complete"),
    [
        ("Device", {}, {"schema": "", "values": {}}),
        ("Group", {}, {"selector": "", "priority": 100, "schema": "", "values": {}}),
        (
            "Schema",
            {"schema": {"type": "object"}},
            {"schema": {"type": "object"}, "max_document": 16384, "confirm_s": 120},
        ),
    ],
)
def test_what_is_left_out_has_a_value(kind: str, spec: dict[str, Any], complete: dict[str, Any]) -> None:
    manifest = parse_manifest({"kind": kind, "metadata": {"name": "hall"}, "spec": spec})

    assert manifest == Manifest(kind, "hall", complete, {}, {})
    assert manifest.path == object_path(kind, "hall")


def test_kind_and_name_may_come_from_the_path() -> None:
    assert parse_manifest({}, kind="Device", name="lamp-1").path == "device/lamp-1"
    assert refusal_of({"kind": "Group"}, kind="Device", name="lamp-1").code == "bad_object"
    assert refusal_of({"metadata": {"name": "lamp-2"}}, kind="Device", name="lamp-1").code == "bad_object"


def test_what_the_daemon_sets_is_ignored() -> None:
    shown = {
        **DEVICE,
        "apiVersion": "henge/v1",
        "metadata": {"name": "lamp-1", "id": "x", "revision": 7, "created": "", "changed": "", "author": "eve"},
        "status": {"identity": "active"},
    }

    assert parse_manifest(shown) == parse_manifest(DEVICE)


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"selector": 7}, "/spec/selector"),
        ({"selector": "a b"}, "/spec/selector"),
        ({"priority": -1}, "/spec/priority"),
        ({"priority": 1001}, "/spec/priority"),
        ({"priority": 1.0}, "/spec/priority"),
        ({"priority": True}, "/spec/priority"),
        ({"priority": "1"}, "/spec/priority"),
        ({"schema": "No"}, "/spec/schema"),
        ({"schema": None}, "/spec/schema"),
        ({"values": []}, "/spec/values"),
        ({"values": None}, "/spec/values"),
        ({"value": {}}, "/spec/value"),
    ],
)
def test_a_groups_faults_are_named_by_pointer(spec: dict[str, Any], pointer: str) -> None:
    error = refusal_of({"kind": "Group", "metadata": {"name": "hall"}, "spec": spec})

    assert [(problem.object, problem.pointer) for problem in error.problems] == [("group/hall", pointer)]


@pytest.mark.parametrize("number", [63, 2**20 + 1, 64.0, "64", None])
def test_a_schemas_limit_is_a_number_of_bytes(number: Any) -> None:
    spec = {"schema": {}, "max_document": number}

    assert refusal_of({"kind": "Schema", "metadata": {"name": "lamp"}, "spec": spec}).code == "bad_object"


def nested(depth: int) -> object:
    """A list in lists."""
    return [] if depth == 1 else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        pytest.param("x" * 65_536, "", "", id="V07 a text of 64 KiB"),
        pytest.param("x" * 65_537, "too_complex", "/spec/values/a", id="V07 a byte more"),
        pytest.param(nested(29), "", "", id="V12 a body of 32 levels"),
        pytest.param(nested(30), "too_deep", "/spec/values/a" + "/0" * 29, id="V12 a level more"),
        pytest.param([0] * 19_000, "", "", id="V12 many values"),
        pytest.param([0] * 20_000, "too_complex", "/spec/values/a", id="V12 too many values"),
        pytest.param({str(one): 1 for one in range(1000)}, "", "", id="V13 1000 keys"),
        pytest.param({str(one): 1 for one in range(1001)}, "too_complex", "/spec/values/a", id="V13 a key more"),
        pytest.param([0] * 100_000, "too_complex", "/spec/values/a", id="V13 a list of 100,000"),
        pytest.param({"k" * 129: 1}, "too_complex", "/spec/values/a", id="a key of 129 bytes"),
        pytest.param(2**53, "number_out_of_range", "/spec/values/a", id="V03 a number too large"),
    ],
)
@pytest.mark.parametrize("kind", ["Group", "Device"])
def test_an_object_obeys_the_limits_of_json_however_it_came(kind: str, value: object, code: str, pointer: str) -> None:
    manifest = {"kind": kind, "metadata": {"name": "hall"}, "spec": {"values": {"a": value}}}
    if not code:
        assert parse_manifest(manifest).spec["values"] == {"a": value}
        return
    error, path = refusal_of(manifest), object_path(kind, "hall")

    assert (error.code, [(one.object, one.pointer) for one in error.problems]) == (code, [(path, pointer)])
    assert error.message.startswith(f"{path}: {pointer}: ")
    assert "docs/limits.md" in error.cure


@pytest.mark.parametrize(
    ("kind", "field", "least", "most"),
    [
        ("Schema", "max_document", 64, 2**20),
        ("Schema", "confirm_s", 1, 3600),
        ("Group", "priority", 0, 1000),
    ],
)
def test_a_number_of_a_manifest_is_good_from_its_least_to_its_most(
    kind: str, field: str, least: int, most: int
) -> None:
    for number in (least, least + 1, most - 1, most):
        spec = {"schema": {}} if kind == "Schema" else {}
        manifest = parse_manifest({"kind": kind, "metadata": {"name": "x"}, "spec": {**spec, field: number}})
        assert manifest.spec[field] == number
    for number in (least - 1, most + 1):
        error = refusal_of({"kind": kind, "metadata": {"name": "x"}, "spec": {**spec, field: number}})
        assert [one.pointer for one in error.problems] == [f"/spec/{field}"]


def test_a_record_gives_its_manifest_back() -> None:
    record = ObjectRecord(kind="Device", name="lamp-1", spec={"schema": "", "values": {}}, labels={"a": "b"})

    assert manifest_of(record) == parse_manifest({**DEVICE, "metadata": {"name": "lamp-1", "labels": {"a": "b"}}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("henge/v1") | json_values,
        "kind": st.sampled_from(["Device", "Group", "Schema"]) | json_values,
        "metadata": st.fixed_dictionaries({"name": st.just("lamp-1") | json_values}, optional={"labels": json_values})
        | json_values,
        "spec": st.dictionaries(
            st.sampled_from(["schema", "values", "selector", "priority", "confirm_s", "x"]), json_values, max_size=4
        )
        | json_values,
    },
)


@given(json_values | near_misses)
def test_anything_is_a_manifest_or_our_refusal(value: object) -> None:
    try:
        manifest = parse_manifest(value)
    except HengeError as error:
        assert error.kind == "invalid"
    else:
        assert parse_manifest({"kind": manifest.kind, "metadata": {"name": manifest.name}, "spec": manifest.spec})


@pytest.mark.parametrize("text", ["", "/", "lamp-1", "Device/lamp-1", "token/x", "/lamp-1"])
def test_an_object_is_named_by_kind_and_name(text: str) -> None:
    with pytest.raises(Invalid):
        parse_object_path(text)


@given(st.text())
def test_any_text_names_an_object_or_is_refused(text: str) -> None:
    try:
        kind, _ = parse_object_path(text)
    except HengeError as error:
        assert error.code == "bad_parameter"
    else:
        assert kind in ("Schema", "Group", "Device", "Secret")
