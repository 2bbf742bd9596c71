"""Secrets in the fleet: who gets them, who is refused, what is remembered of them, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hengd.rules.configs import Request
from hengd.rules.fleet import find_desired, required_object
from hengd.rules.outcome import Outcome
from hengd.rules.secrets import MAX_SECRET_BYTES, Secrets
from henge_protocol.errors import Conflict, HengeError, Internal, Invalid, Stale, TooLarge, Unavailable
from henge_protocol.model import digest_of
from tests.hengd.rules.conftest import ADA, Desk
from tests.service import device, group, schema

HOME = "correct horse battery"
LAB = "staple-of-the-laboratory"
PIN = {"type": "integer", "writeOnly": True}
NETWORK = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "color": {"type": "string", "default": "green"},
        "wifi": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "ssid": {"type": "string"},
                "psk": {"type": "string", "minLength": 8, "writeOnly": True},
            },
        },
        "pin": PIN,
        "peers": {"items": {"type": "object", "properties": {"key": {"type": "string", "writeOnly": True}}}},
        "login": {"type": "object", "required": ["user"], "writeOnly": True},
        "note": {},
    },
}  # fmt: skip


def ref(name: str) -> dict[str, str]:
    """A reference to a secret."""
    return {"$secret": name}


def node(name: str, **values: Any) -> dict[str, Any]:
    """A device of the schema."""
    return device(name, bound="node", **values)


async def put(desk: Desk, name: str, value: object, *, if_match: str | None = None, dry: bool = False) -> Outcome:
    """Give a secret a value."""
    return await _secrets(desk).put(name, value, if_match, Request(ADA, dry_run=dry))


async def fleet(desk: Desk) -> None:
    """Two devices with the secret of a group, one of which has its own, and one with none."""
    await put(desk, "wifi/home", HOME)
    await put(desk, "wifi/lab", LAB)
    await desk.apply(
        schema("node", **NETWORK), schema(),
        group("home", "place=home", bound="node", wifi={"ssid": "den", "psk": ref("wifi/home")}),
        device("one", "node", {"place": "home"}),
        device("two", "node", {"place": "home"}, wifi={"psk": ref("wifi/lab")}),
        device("lamp-1", labels={"place": "home"}, color="red"),
    )  # fmt: skip


def exact(desk: Desk, name: str) -> Any:
    """What the device really gets."""
    return json.loads(exact_bytes(desk, name))


def exact_bytes(desk: Desk, name: str) -> bytes:
    digest = desk.configs.document(name).digest
    with desk.store.read() as tx:
        data = desk.vault.document(tx, digest)
    assert data is not None
    assert digest_of(data) == digest
    return data


def _secrets(desk: Desk) -> Secrets:
    return Secrets(desk.store, desk.configs)


async def refused(desk: Desk, name: str, value: object, **options: Any) -> HengeError:
    """A value that must be refused, and leaves nothing."""
    before = desk.everything()
    with pytest.raises(HengeError) as refusal:
        await put(desk, name, value, **options)
    assert desk.everything() == before
    return refusal.value


# --- who gets what ------------------------------------------------------------------------------------------


async def test_a_device_gets_the_secret_and_people_see_its_name(desk: Desk) -> None:
    await fleet(desk)

    assert exact(desk, "one") == {"color": "green", "wifi": {"psk": HOME, "ssid": "den"}}
    assert desk.document("one") == {
        "color": "green", "wifi": {"psk": {"$secret": "wifi/home", "revision": 1}, "ssid": "den"},
    }  # fmt: skip
    assert desk.configs.document("one").redacted
    assert not desk.configs.document("lamp-1").redacted


async def test_a_nearer_layer_refers_to_another_secret(desk: Desk) -> None:
    await fleet(desk)

    assert exact(desk, "two")["wifi"] == {"psk": LAB, "ssid": "den"}


async def test_why_names_the_secrets_of_all_layers(desk: Desk) -> None:
    await fleet(desk)
    [psk] = await desk.configs.why("two", "wifi.psk")

    assert [(said.name, said.value, said.wins) for said in psk.layers] == [
        ("two", ref("wifi/lab"), True),
        ("home", ref("wifi/home"), False),
    ]


async def test_null_takes_an_inherited_secret_away(desk: Desk) -> None:
    await fleet(desk)
    await desk.apply(device("one", "node", {"place": "home"}, wifi={"psk": None}))

    assert exact(desk, "one")["wifi"] == {"ssid": "den"}
    assert not desk.configs.document("one").redacted


async def test_secrets_stand_in_items_of_lists_and_are_of_any_type(desk: Desk) -> None:
    await put(desk, "pin", 4711)
    await put(desk, "key", "k" * 20)
    await put(desk, "login", {"user": "ada", "words": ["a", "b"]})
    await desk.apply(
        schema("node", **NETWORK), node("one", pin=ref("pin"), login=ref("login"), peers=[{"key": ref("key")}])
    )

    assert exact(desk, "one") == {
        "color": "green", "pin": 4711, "login": {"user": "ada", "words": ["a", "b"]}, "peers": [{"key": "k" * 20}],
    }  # fmt: skip


async def test_a_new_value_is_one_revision_and_moves_those_who_hold_it(desk: Desk) -> None:
    await fleet(desk)
    before = desk.configs.document("one").digest
    outcome = await put(desk, "wifi/home", "another long phrase")
    record = desk.revision(outcome.revision)

    assert [moved.name for moved in outcome.devices] == ["one"]
    assert exact(desk, "one")["wifi"]["psk"] == "another long phrase"
    assert desk.configs.document("one").digest != before
    assert [(change.kind, change.name) for change in record.changes] == [("Secret", "wifi/home")]


async def test_a_dry_run_tells_that_a_secret_differs_and_keeps_the_old_one(desk: Desk) -> None:
    await fleet(desk)
    before = desk.everything()
    outcome = await put(desk, "wifi/home", "another long phrase", dry=True)
    [moved] = outcome.devices

    assert [(one.pointer, one.before, one.after) for one in moved.changes] == [
        ("/wifi/psk", {"$secret": "wifi/home", "revision": 1}, {"$secret": "wifi/home", "revision": 4})
    ]
    assert desk.everything() == before
    assert exact(desk, "one")["wifi"]["psk"] == HOME


async def test_v27_the_same_value_again_is_no_revision(desk: Desk) -> None:
    await fleet(desk)
    before = desk.everything()
    outcome = await put(desk, "wifi/home", HOME)

    assert [done.action for done in outcome.objects] == ["unchanged"]
    assert desk.everything() == before


async def test_devices_that_hold_the_same_secrets_share_one_document(desk: Desk) -> None:
    await put(desk, "wifi/home", HOME)
    await desk.apply(schema("node", **NETWORK), *[node(f"n-{at}", wifi={"psk": ref("wifi/home")}) for at in range(5)])
    with desk.store.read() as tx:
        count = tx.count("documents")

    assert count == 1


async def test_a_digest_does_not_confirm_a_guess(desk: Desk) -> None:
    await fleet(desk)
    data = exact_bytes(desk, "one")
    guess = json.dumps(exact(desk, "one"), separators=(",", ":"), sort_keys=True).encode()

    assert data.startswith(guess)
    assert len(data) >= len(guess) + 128
    assert digest_of(guess) != desk.configs.document("one").digest


async def test_the_size_of_a_document_does_not_tell_that_of_a_secret(desk: Desk) -> None:
    await fleet(desk)
    sizes = set()
    for length in range(12, 40):
        await put(desk, "wifi/home", "x" * length)
        with desk.store.read() as tx:
            desired = find_desired(tx, required_object(tx, "Device", "one").id)
        assert desired is not None
        sizes.add(desired.size)

    assert len(sizes) <= 2
    assert all(size % 64 == 0 for size in sizes)


# --- what is remembered -------------------------------------------------------------------------------------


async def test_the_value_is_in_no_record_and_not_in_the_file(desk: Desk, tmp_path: Path) -> None:
    await fleet(desk)
    await put(desk, "wifi/home", LAB + HOME)
    databases = ("meta", "objects", "revisions", "documents", "desired", "secrets", "keys")
    with desk.store.read() as tx:
        records = b"".join(payload for database in databases for _, payload in tx.scan(database))
    file = (tmp_path / "state" / "data" / "db" / "data.mdb").read_bytes()

    for value in (HOME, LAB):
        assert value.encode() not in records
        assert value.encode() not in file


async def test_rolling_back_everything_leaves_secrets_as_they_are(desk: Desk) -> None:
    await fleet(desk)
    to = desk.history(limit=1)[0].revision
    await put(desk, "wifi/home", "another long phrase")
    await desk.apply(device("one", "node", {"place": "home"}, color="red"))
    await desk.configs.rollback(to, None, Request(ADA))

    assert exact(desk, "one") == {"color": "green", "wifi": {"psk": "another long phrase", "ssid": "den"}}


async def test_old_values_of_a_secret_cannot_be_brought_back(desk: Desk) -> None:
    await put(desk, "wifi/home", HOME)
    with pytest.raises(Conflict) as refusal:
        await desk.configs.rollback(0, ("Secret", "wifi/home"), Request(ADA))

    assert refusal.value.code == "read_only"


async def test_a_rollback_to_a_secret_that_is_gone_is_refused(desk: Desk) -> None:
    await fleet(desk)
    await desk.apply(device("two", "node", {"place": "home"}))
    await _secrets(desk).delete("wifi/lab", None, Request(ADA))
    with pytest.raises(Invalid) as refusal:
        await desk.configs.rollback(3, ("Device", "two"), Request(ADA))

    assert refusal.value.code == "no_such_secret"


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "pointer"),
    [
        pytest.param({"wifi": {"psk": HOME}}, "/spec/values/wifi/psk", id="text"),
        pytest.param({"pin": 4711}, "/spec/values/pin", id="number"),
        pytest.param({"login": {"user": HOME}}, "/spec/values/login", id="object"),
        pytest.param({"login": {"user": {"$secret": "wifi/home"}}}, "/spec/values/login", id="reference-inside"),
        pytest.param({"peers": [{}, {"key": HOME}]}, "/spec/values/peers/1/key", id="in-a-list"),
        pytest.param({"note": {"$secret": "wifi/home"}}, "/spec/values/note", id="v25-reference-in-a-plain-field"),
        pytest.param({"note": [{"x": {"$secret": "wifi/home"}}]}, "/spec/values/note/0/x", id="v25-deep-inside"),
        pytest.param({"wifi": {"psk": {"$secret": "Wifi Home"}}}, "/spec/values/wifi/psk", id="no-name"),
        pytest.param({"wifi": {"psk": {"$secret": 7}}}, "/spec/values/wifi/psk/$secret", id="number-as-name"),
        pytest.param({"wifi": {"psk": {"$secret": "wifi/home", "x": 1}}}, "/spec/values/wifi/psk/x", id="more"),
    ],
)  # fmt: skip
async def test_a_secret_in_clear_text_or_in_the_wrong_place_is_refused_and_not_repeated(
    desk: Desk, values: dict[str, Any], pointer: str
) -> None:
    await put(desk, "wifi/home", HOME)
    await desk.apply(schema("node", **NETWORK))
    errors = [
        await desk.refused(node("one", **values)),
        await desk.refused(group("all", bound="node", priority=0, **values)),
    ]

    assert errors[0].code == "does_not_fit"
    assert [problem.pointer for problem in errors[0].problems] == [pointer]
    assert HOME not in repr([(error.message, error.problems, error.cure, error.extra) for error in errors])


async def test_an_unbound_group_says_no_secret_in_clear_text(desk: Desk) -> None:
    await desk.apply(schema("node", **NETWORK))
    error = await desk.refused(group("some", "a=b", wifi={"psk": HOME}))

    assert error.code == "does_not_fit"
    assert HOME not in str((error.message, error.problems))


async def test_v24_a_reference_to_no_secret_is_refused(desk: Desk) -> None:
    await desk.apply(schema("node", **NETWORK))
    error = await desk.refused(node("one", wifi={"psk": ref("wifi/home")}))

    assert (error.code, error.problems[0].pointer) == ("no_such_secret", "/spec/values/wifi/psk")
    assert "hengectl secret set wifi/home" in error.cure


async def test_a_value_that_does_not_fit_a_device_is_refused_and_not_repeated(desk: Desk) -> None:
    await fleet(desk)
    errors = [await refused(desk, "wifi/home", value) for value in ("short12"[:7], 88_123_456)]

    assert {error.code for error in errors} == {"does_not_fit"}
    assert errors[0].extra["devices"] == ["one"]
    for error, told in zip(errors, ("short12", "88123456"), strict=True):
        assert told not in repr((error.message, error.problems, error.cure, error.extra))


async def test_j41_a_field_whose_secret_would_be_shown_stays_secret(desk: Desk) -> None:
    await fleet(desk)
    opened = json.loads(json.dumps(NETWORK).replace('"minLength": 8, "writeOnly": true', '"minLength": 8'))
    error = await desk.refused(schema("node", **opened))

    assert error.code == "does_not_fit"


async def test_a_field_that_becomes_secret_refuses_what_is_written_in_it(desk: Desk) -> None:
    opened = json.loads(json.dumps(NETWORK).replace('"minLength": 8, "writeOnly": true', '"minLength": 8'))
    await desk.apply(schema("node", **opened), node("one", wifi={"psk": HOME}))
    error = await desk.refused(schema("node", **NETWORK))

    assert error.code == "does_not_fit"
    assert HOME not in repr((error.message, error.problems))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param({"a": None}, id="null-inside"),
        pytest.param({"a": {"b": 1, "c": None}}, id="null-deep-inside"),
        pytest.param("", id="v28-empty"),
        pytest.param({}, id="empty-object"),
        pytest.param([], id="empty-list"),
        pytest.param({"$secret": "wifi/lab"}, id="a-reference"),
        pytest.param({"user": [{"$secret": "wifi/lab"}]}, id="a-reference-inside"),
    ],
)
async def test_a_secret_is_neither_empty_nor_a_reference(desk: Desk, value: object) -> None:
    assert (await refused(desk, "wifi/home", value)).code == "bad_object"


async def test_v28_the_largest_secret_is_kept_and_one_byte_more_is_not(desk: Desk) -> None:
    await put(desk, "ca", "x" * (MAX_SECRET_BYTES - 2))
    error = await refused(desk, "ca", "y" * (MAX_SECRET_BYTES - 1))

    assert isinstance(error, TooLarge)
    assert "yyyy" not in error.message


async def test_a_document_that_a_secret_makes_too_large_is_refused(desk: Desk) -> None:
    small = schema("node", **NETWORK)
    small["spec"]["max_document"] = 300
    await put(desk, "wifi/home", HOME)
    await desk.apply(small, node("one", wifi={"psk": ref("wifi/home")}))

    assert (await refused(desk, "wifi/home", "z" * 400)).code == "document_too_large"


async def test_a_secret_that_makes_a_document_too_deep_is_refused_without_a_word_of_its_inside(desk: Desk) -> None:
    spot: dict[str, Any] = {"type": "object", "properties": {"login": {"writeOnly": True}}}
    values: object = {"login": ref("deep")}
    for _ in range(8):
        spot, values = {"type": "array", "items": spot}, [values]
    await put(desk, "deep", HOME)
    await desk.apply(schema("node", type="object", properties={"peers": spot}), node("one", peers=values))
    deep: dict[str, Any] = {"room": HOME}
    for _ in range(21):
        deep = {"room": deep}
    await put(desk, "deep", deep)
    error = await refused(desk, "deep", {"room": deep})

    assert (error.code, error.extra["devices"]) == ("too_deep", ["one"])
    assert "room" not in error.message + str(error.problems)
    assert error.cure


async def test_a_secret_in_use_is_not_deleted_and_its_users_are_named(desk: Desk) -> None:
    await fleet(desk)
    before = desk.everything()
    with pytest.raises(Conflict) as refusal:
        await _secrets(desk).delete("wifi/home", None, Request(ADA))

    assert refusal.value.code == "in_use"
    assert "group/home" in refusal.value.message
    assert desk.everything() == before


async def test_a_stale_version_is_refused(desk: Desk) -> None:
    await put(desk, "wifi/home", HOME)
    error = await refused(desk, "wifi/home", LAB, if_match='"0000000000.1"')

    assert isinstance(error, Stale)


async def test_those_who_use_a_secret_are_listed(desk: Desk) -> None:
    await fleet(desk)

    assert {view.record.name: view.users for view in _secrets(desk).list()} == {
        "wifi/home": ("group/home",),
        "wifi/lab": ("device/two",),
    }


async def test_a_text_that_looks_like_a_reference_is_a_text(desk: Desk) -> None:
    await put(desk, "wifi/home", HOME)
    await desk.apply(schema("node", **NETWORK), node("one", note='{"$secret":"wifi/home"}'))

    assert exact(desk, "one")["note"] == '{"$secret":"wifi/home"}'
    assert _secrets(desk).view("wifi/home").users == ()


# --- the key ------------------------------------------------------------------------------------------------


def restarted(desk: Desk) -> None:
    """The daemon knows only what it reads from now on."""
    desk.vault._opened = None


@pytest.mark.parametrize("keys", [[], [b"x" * 32]], ids=["missing", "wrong"])
async def test_f38_without_the_key_what_holds_no_secret_goes_on(desk: Desk, keys: list[bytes]) -> None:
    await fleet(desk)
    desk.keys[:] = keys
    restarted(desk)
    await desk.apply(device("lamp-1", labels={"place": "home"}, color="blue"))
    for attempt in (put(desk, "wifi/home", LAB), desk.apply(device("one", "node", {"place": "home"}, color="red"))):
        with pytest.raises(Unavailable) as refusal:
            await attempt
        assert refusal.value.code == "secrets_locked"
    with pytest.raises(Unavailable):
        exact_bytes(desk, "one")

    assert desk.document("lamp-1")["color"] == "blue"
    assert desk.document("one")["wifi"]["psk"] == {"$secret": "wifi/home", "revision": 1}
    assert [view.record.name for view in _secrets(desk).list()] == ["wifi/home", "wifi/lab"]


async def test_the_key_put_back_unlocks_without_a_restart(desk: Desk) -> None:
    await fleet(desk)
    keys = list(desk.keys)
    desk.keys[:] = []
    restarted(desk)
    with desk.store.read() as tx:
        trouble = desk.vault.trouble(tx)
    desk.keys[:] = keys
    with desk.store.read() as tx:
        after = desk.vault.trouble(tx)

    assert trouble is not None
    assert trouble.code == "secrets_locked"
    assert after is None
    assert exact(desk, "one")["wifi"]["psk"] == HOME


async def test_f39_a_replaced_key_takes_over_while_the_old_one_is_there(desk: Desk) -> None:
    await fleet(desk)
    new = b"n" * 32
    desk.keys.insert(0, new)
    with desk.store.read() as tx:
        assert desk.vault.is_due(tx)
    await desk.store.write(desk.vault.renew)
    desk.keys[:] = [new]
    restarted(desk)
    with desk.store.read() as tx:
        assert not desk.vault.is_due(tx)

    assert exact(desk, "one")["wifi"]["psk"] == HOME


async def test_f39_a_wrong_key_in_place_of_the_right_one_does_no_harm_while_running(desk: Desk) -> None:
    await fleet(desk)
    desk.keys[:] = [b"w" * 32]
    await put(desk, "wifi/home", "another long phrase")

    assert exact(desk, "one")["wifi"]["psk"] == "another long phrase"


async def test_a_first_secret_that_is_refused_leaves_no_key_behind(desk: Desk) -> None:
    await put(desk, "wifi/home", HOME, dry=True)
    with desk.store.read() as tx:
        left = [tx.count("keys"), tx.count("secrets")]
    await put(desk, "wifi/home", HOME)
    restarted(desk)

    assert left == [0, 0]
    with desk.store.read() as tx:
        assert desk.vault.get(tx, "wifi/home") == (1, HOME)


async def test_a_sealed_value_under_another_name_is_noticed(desk: Desk) -> None:
    await fleet(desk)
    await desk.store.write(lambda tx: tx.put("secrets", b"wifi/home", tx.get("secrets", b"wifi/lab") or b""))
    with pytest.raises(Internal) as refusal, desk.store.read() as tx:
        desk.vault.get(tx, "wifi/home")

    assert refusal.value.code == "storage_corrupt"


async def test_a_secret_that_was_refused_for_standing_in_the_open_is_in_no_page_of_the_store(
    desk: Desk, tmp_path: Path
) -> None:
    """The engine gives the memory of what was undone to the next commit, and writes what is left in it."""
    await fleet(desk)
    for number in range(30):
        with pytest.raises(HengeError):
            await desk.apply(group("home", "place=home", bound="node", wifi={"ssid": "den", "psk": "Kanarienvogel"}))
        with pytest.raises(HengeError):
            await desk.apply(device("one", "node", {"place": "home"}, wifi={"psk": "Kanarienvogel"}), dry=True)
        await desk.apply(group("home", "place=home", bound="node", wifi={"ssid": f"den {number}"}))

    assert b"Kanarienvogel" not in (tmp_path / "state" / "data" / "db" / "data.mdb").read_bytes()
