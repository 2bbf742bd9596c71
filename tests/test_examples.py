"""The sample fleet, judged by libraries and rules that are not the daemon's own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from henge_protocol.selector import parse_selector

HOMELAB = Path(__file__).parent.parent / "examples" / "homelab"
KINDS = {"schemas": "Schema", "groups": "Group", "devices": "Device"}


def load(folder: str) -> dict[str, dict[str, Any]]:
    objects = {}
    for file in sorted((HOMELAB / folder).glob("*.yaml")):
        objects[file.stem] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return objects


SCHEMAS, GROUPS, DEVICES = load("schemas"), load("groups"), load("devices")


def merge(low: Any, high: Any) -> Any:
    """RFC 7396, the sample holding no null."""
    if not (isinstance(low, dict) and isinstance(high, dict)):
        return high
    return {**low, **{key: merge(low.get(key), value) for key, value in high.items()}}


def resolve(schema: Any, root: dict[str, Any]) -> Any:
    """The subschema with a local reference's content put in its place."""
    if "$ref" not in schema:
        return schema
    return root["$defs"][schema["$ref"].removeprefix("#/$defs/")] | {k: v for k, v in schema.items() if k != "$ref"}


def defaults(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The lowest layer: every default below ``properties``."""
    found = {}
    for name, below in schema.get("properties", {}).items():
        field = resolve(below, root)
        if "default" in field:
            found[name] = field["default"]
        elif inner := defaults(field, root):
            found[name] = inner
    return found


def subschemas(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for below in [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), schema.get("items")]:
        if below is not None:
            yield from subschemas(resolve(below, root), root)


def body(schema: str) -> dict[str, Any]:
    return SCHEMAS[schema]["spec"]["schema"]


def groups_of(device: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Priority, name and values of the groups that speak to ``device``, cut to the fields its schema declares."""
    labels, schema = DEVICES[device]["metadata"]["labels"], DEVICES[device]["spec"]["schema"]
    speaking = []
    for name, group in GROUPS.items():
        spec = group["spec"]
        if parse_selector(spec["selector"]).matches(labels) and spec.get("schema", schema) == schema:
            known = {field: value for field, value in spec["values"].items() if field in body(schema)["properties"]}
            speaking.append((spec["priority"], name, known))
    return sorted(speaking, key=lambda layer: layer[:2])


def document(device: str) -> dict[str, Any]:
    spec = DEVICES[device]["spec"]
    layers = [values for _, _, values in groups_of(device)]
    merged = defaults(body(spec["schema"]), body(spec["schema"]))
    for values in [*layers, spec["values"]]:
        merged = merge(merged, values)
    return merged


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@pytest.mark.parametrize("folder", KINDS)
def test_every_file_holds_the_object_it_is_named_after(folder: str) -> None:
    for stem, found in load(folder).items():
        assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == ("henge/v1", KINDS[folder], stem)


def test_the_fleet_has_the_size_that_the_documents_promise() -> None:
    assert len(SCHEMAS) >= 5
    assert len(DEVICES) == 12
    assert "lamp-1" in DEVICES


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one_for_both_validators(name: str) -> None:
    Draft202012Validator.check_schema(body(name))

    jsonschema_rs.Draft202012Validator(body(name), offline=True, pattern_options=jsonschema_rs.RegexOptions())


@pytest.mark.parametrize("name", SCHEMAS)
def test_defaults_and_examples_fit_their_own_schema(name: str) -> None:
    root = body(name)

    for schema in subschemas(root, root):
        for value in [schema[key] for key in ("default",) if key in schema] + schema.get("examples", []):
            assert faults({**schema, "$defs": root.get("$defs", {})}, value) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_top_level_field_explains_itself(name: str) -> None:
    root = body(name)

    for field in root["properties"].values():
        described = resolve(field, root)
        assert described["title"]
        assert "description" in described or "properties" in described


@pytest.mark.parametrize("name", SCHEMAS)
def test_objects_refuse_undeclared_fields(name: str) -> None:
    root = body(name)

    for schema in subschemas(root, root):
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
            assert set(schema.get("required", [])) <= set(schema["properties"])


@pytest.mark.parametrize("name", sorted(SCHEMAS.keys() - {"eink-display"}))
def test_a_device_works_from_defaults_alone(name: str) -> None:
    assert faults(body(name), defaults(body(name), body(name))) == []


def test_the_display_asks_for_a_location() -> None:
    schema = body("eink-display")

    assert faults(schema, defaults(schema, schema)) == ["$: 'location' is a required property"]


@pytest.mark.parametrize("name", DEVICES)
def test_merged_document_fits_schema_and_limit(name: str) -> None:
    spec = SCHEMAS[DEVICES[name]["spec"]["schema"]]["spec"]
    rendered = json.dumps(document(name), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    assert faults(spec["schema"], document(name)) == []
    assert len(rendered) <= spec.get("max_document", 16384) // 2


@pytest.mark.parametrize("name", DEVICES)
def test_groups_of_equal_priority_agree(name: str) -> None:
    for (low, _, one), (high, _, other) in itertools.combinations(groups_of(name), 2):
        assert low != high or not one.keys() & other.keys()


@pytest.mark.parametrize("name", GROUPS)
def test_groups_set_only_fields_that_their_schemas_declare(name: str) -> None:
    spec = GROUPS[name]["spec"]
    asked = [spec["schema"]] if "schema" in spec else SCHEMAS
    declared = set().union(*(body(schema)["properties"] for schema in asked))

    assert set(spec["values"]) <= declared


def test_yaml_words_that_older_readers_take_for_booleans_are_quoted() -> None:
    """YAML 1.1 reads off and on as booleans, 1.2 as text: the files mean the same to both."""
    assert document("relay-1")["power_on"] == "off"
    assert body("thermostat")["properties"]["mode"]["enum"] == ["auto", "hold", "off"]


@pytest.mark.parametrize("name", sorted(SCHEMAS.keys() - {"pi-camera"}))
def test_what_may_cut_a_board_off_is_marked(name: str) -> None:
    root = body(name)

    assert resolve(root["properties"]["wifi"], root)["x-henge-risk"] == "connectivity"
