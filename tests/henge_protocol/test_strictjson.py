"""The strict parser refuses what two readers would understand differently; the canonical text is exact."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.errors import Invalid, Malformed
from henge_protocol.strictjson import LIMITS, MAX_INTEGER, JsonLimits, canonical, parse
from tests.effort import no_blow_up

VECTORS = Path(__file__).parents[1] / "vectors"
BODIES = json.loads((VECTORS / "bodies.json").read_text("utf-8"))
TEXTS = json.loads((VECTORS / "texts.json").read_text("utf-8"))

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=25,
)


def text_of(case: dict[str, Any]) -> bytes:
    return case["in"].encode() if "in" in case else bytes.fromhex(case["hex"])


def refusal(data: bytes, **options: Any) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse(data, **options)
    return caught.value


def same(left: object, right: object) -> bool:
    """Equality that tells 1, 1.0 and True apart, and -0.0 from 0.0."""
    return repr(left) == repr(right) if not isinstance(left, dict | list) else json.dumps(left) == json.dumps(right)


@pytest.mark.parametrize("case", TEXTS["strict_json"], ids=lambda case: case["name"])
def test_text_vector(case: dict[str, Any]) -> None:
    assert set(case) - {"in", "hex"} == {"name", "why", "expect", "verdict"}
    if case["verdict"] == "valid":
        assert same(parse(text_of(case)), json.loads(text_of(case)))
    else:
        assert refusal(text_of(case)).code == case["expect"]


@pytest.mark.parametrize("case", BODIES["cases"], ids=lambda case: case["name"])
def test_body_vector(case: dict[str, Any]) -> None:
    assert set(case) == {"name", "why", "in", "expect", "digest", "verdict"}
    if case["verdict"] == "valid":
        assert canonical(case["in"]).decode() == case["expect"]
        assert hashlib.sha256(canonical(case["in"])).hexdigest() == case["digest"]
    else:
        with pytest.raises(Invalid) as caught:
            canonical(case["in"])
        assert caught.value.code == case["expect"]


@pytest.mark.parametrize("cases", [TEXTS["strict_json"], BODIES["cases"]], ids=["texts", "bodies"])
def test_vector_names_are_unique(cases: list[dict[str, Any]]) -> None:
    names = [case["name"] for case in cases]

    assert len(names) == len(set(names))


def test_syntax_error_names_offset_line_and_column() -> None:
    error = refusal('{"ü": 1,\n "b": }'.encode())

    assert error.extra == {"offset": 16, "line": 2, "column": 7}
    assert error.message == "not JSON at line 2, column 7 (offset 16): found '}'; a value was expected"


@pytest.mark.parametrize(
    ("text", "code", "pointer"),
    [
        pytest.param(b'{"a":[1,{"b/c":9007199254740992}]}', "number_out_of_range", "/a/1/b~1c", id="R40"),
        pytest.param(b'{"a":{"b":-1e400},"c":NaN}', "number_out_of_range", "/a/b", id="R34 the first of two"),
        pytest.param(b'{"a":[{"b":NaN}]}', "number_out_of_range", "/a/0/b", id="R34 NaN"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", "number_out_of_range", "/a", id="R32"),
        pytest.param(b'{"a":{"b":1,"b":2}}', "duplicate_key", "/a", id="R35"),
        pytest.param(b'{"a":{"b":Infinity,"b":2}}', "duplicate_key", "/a", id="R35 around another fault"),
        pytest.param(b'{"b":1,"b":2}', "duplicate_key", "", id="R35 outermost"),
        pytest.param(b"NaN", "number_out_of_range", "", id="R34 alone"),
        pytest.param(b'[0,{"%b":1}]' % (b"k" * 129), "too_complex", "/1", id="J30"),
        pytest.param(b'{"a":{%b}}' % b",".join(b'"%d":1' % n for n in range(1001)), "too_complex", "/a", id="V13"),
        pytest.param(b'{"a":["\\ud800"]}', "bad_encoding", "/a/0", id="R36"),
    ],
)
def test_a_refusal_names_the_spot(text: bytes, code: str, pointer: str) -> None:
    error = refusal(text)

    assert (error.code, [one.pointer for one in error.problems]) == (code, [pointer])
    assert error.message == (f"{pointer}: " if pointer else "") + error.problems[0].message


def test_a_refusal_before_a_syntax_error_has_no_spot() -> None:
    error = refusal(b'{"a":NaN,}')

    assert (error.code, error.problems) == ("number_out_of_range", ())


def test_refusal_never_echoes_control_characters() -> None:
    assert "\x1b" not in refusal(b'{"\\u001b[2J":1,"\\u001b[2J":2}').message
    assert "\x1b" not in refusal(b'{"\\u001b[2J":{"a":1,"a":2}}').message
    assert len(refusal(b'{"%b":' % (b"k" * 128) * 20 + b"NaN" + b"}" * 20).message) < 300
    assert "\x1b" not in refusal(b"\x1b[2J").message


@pytest.mark.parametrize(
    ("limits", "fits", "exceeds", "code"),
    [
        (JsonLimits(max_nodes=4), b"[1,2,3]", b"[1,2,3,4]", "too_complex"),
        (JsonLimits(max_nodes=4), b"[[],[],[]]", b"[[],[],[],[]]", "too_complex"),
        (JsonLimits(max_nodes=4), b'[",,,,,,"]', b'[[1,2],",,,,,,"]', "too_complex"),
        (JsonLimits(max_keys=2), b'{"a":1,"b":2}', b'{"a":1,"b":2,"c":3}', "too_complex"),
        (JsonLimits(max_string_bytes=4), '"éé"'.encode(), '"ééé"'.encode(), "too_complex"),
        (JsonLimits(max_string_bytes=4), b'["\\u00e9\\u00e9"]', b'["\\u00e9\\u00e9a"]', "too_complex"),
        (JsonLimits(max_key_bytes=4), '{"éé":1}'.encode(), '{"éée":1}'.encode(), "too_complex"),
        (JsonLimits(max_depth=2), b"[[1]]", b"[[[1]]]", "too_deep"),
    ],
)
def test_limit_is_exact(limits: JsonLimits, fits: bytes, exceeds: bytes, code: str) -> None:
    value = parse(fits, limits=limits)

    assert canonical(value, limits=limits) == canonical(value)
    assert refusal(exceeds, limits=limits).code == code
    with pytest.raises(Invalid) as caught:
        canonical(parse(exceeds), limits=limits)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("fits", "exceeds"),
    [
        (b"[" + b",".join([b"0"] * 19_999) + b"]", b"[" + b",".join([b"0"] * 20_000) + b"]"),
        (
            json.dumps({f"k{i}": 0 for i in range(1_000)}).encode(),
            json.dumps({f"k{i}": 0 for i in range(1_001)}).encode(),
        ),
        (b'"' + b"a" * 65_536 + b'"', b'"' + b"a" * 65_537 + b'"'),
    ],
    ids=["20,000 nodes", "1,000 keys", "64 KiB string"],
)
def test_default_limits_are_exact(fits: bytes, exceeds: bytes) -> None:
    canonical(parse(fits))

    assert refusal(exceeds).code == "too_complex"


HOSTILE = {
    "open brackets": b"[" * 50_000,
    "a mebibyte of brackets": b"[" * 2**20,
    "empty lists": b"[]" * 2**19,
    "commas": b"," * 2**20,
    "quotes": b'"' * 2**20,
    "escaped quotes": b'"' + b'\\"' * 2**19,
    "backslashes": b"\\" * 2**20,
    "one long number": b"9" * 2**20,
    "one long exponent": b"1e" + b"9" * 2**20,
    "60,000 keys": b"{" + b",".join(b'"%d":1' % i for i in range(60_000)) + b"}",
    "escapes": b'"' + b"\\u0041" * 170_000 + b'"',
    "NUL": b"\0" * 2**20,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_mebibyte_is_refused_at_once(data: bytes) -> None:
    with no_blow_up():
        refusal(data)


def test_5000_digit_integer_is_out_of_range() -> None:
    assert refusal(b"1" * 5_000).code == "number_out_of_range"


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_refusal(data: bytes) -> None:
    try:
        value = parse(data)
    except Malformed:
        return
    assert parse(canonical(value)) == value


@given(st.text(alphabet='[]{}",:\\u0123456789dDeE+-.truefalsn \n\ud83d', max_size=60))
def test_any_near_json_gives_a_value_or_a_refusal(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    try:
        value = parse(data)
    except Malformed:
        return
    assert canonical(parse(canonical(value))) == canonical(value)
    assert value == json.loads(data)


@given(documents)
def test_canonical_reads_back_equal_and_renders_again_to_the_same_bytes(value: object) -> None:
    text = canonical(value)

    assert parse(text) == value
    assert canonical(parse(text)) == text


@given(st.dictionaries(st.text(max_size=6), st.integers(0, 9), min_size=2))
def test_canonical_does_not_depend_on_the_order_of_insertion(value: dict[str, int]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        (math.nan, "number_out_of_range", ""),
        ({"a": [1, math.inf]}, "number_out_of_range", "/a/1"),
        ({"a/b": {"c~d": 2**53}}, "number_out_of_range", "/a~1b/c~0d"),
        ({"a": 10**5000}, "number_out_of_range", "/a"),
        ({"a": {"b": "\ud800"}}, "bad_encoding", "/a/b"),
        ({"a": date(2026, 1, 1)}, "bad_object", "/a"),
        ({"a": (1, 2)}, "bad_object", "/a"),
        ({"a": {1: 2}}, "bad_object", "/a"),
        ({"a": b"x"}, "bad_object", "/a"),
        ({"a": {"k" * 129: 1}}, "too_complex", "/a"),
    ],
)
def test_canonical_names_the_spot_that_is_not_json(value: object, code: str, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        canonical(value)

    assert (caught.value.code, caught.value.problems[0].pointer) == (code, pointer)


def test_canonical_of_a_value_that_holds_itself_is_too_deep() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(Invalid) as caught:
        canonical(loop)

    assert caught.value.code == "too_deep"


def test_limits_are_those_of_the_documentation() -> None:
    assert JsonLimits(32, 20_000, 1_000, 128, 65_536) == LIMITS
