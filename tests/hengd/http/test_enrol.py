"""How strangers become known, the device's side: tokens, renewal, login (E01 to E48, S3)."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hengd.journal import read_ends
from hengd.rules.issuing import DEVICE_LIFETIME_S
from henge_protocol import pki
from henge_protocol.joining import parse_token
from tests.hengd.http.conftest import Standing
from tests.hengd.http.joinkit import certificate_in, csr_of, identity_in, renewed, spend, token_of
from tests.service import Admin, Clock, Service, connected, device, enrolment, schema

KEY = pki.generate_key()
DER = pki.make_csr(KEY, "lamp")
WRONG = {"token_id": "zzzzzzzz", "secret": "0" * 26, "csr": csr_of(KEY), "name": "lamp-1"}
"""A guess."""


def b64(data: bytes) -> str:
    """Base64 as bodies carry bytes."""
    return base64.b64encode(data).decode()


def pem(der: bytes) -> bytes:
    """A request in PEM."""
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"


def loaded(key: bytes) -> Any:
    """The key as an object of its library."""
    return serialization.load_pem_private_key(key, None)


def asking(
    key: Any, *extensions: x509.ExtensionType, name: str = "lamp", password: bytes = b"", digest: Any = None
) -> bytes:
    """A request that asks for more than a key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    if password:
        builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, password)
    return builder.sign(key, digest or hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def flipped(der: bytes) -> bytes:
    """A request whose signature is not right any more."""
    return der[:-1] + bytes([der[-1] ^ 1])


PRIVATE = loaded(KEY).private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
GREEDY = asking(
    loaded(KEY),
    x509.BasicConstraints(ca=True, path_length=None),
    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    x509.SubjectAlternativeName([x509.UniformResourceIdentifier("henge://x/admin/root"), x509.DNSName("hengd")]),
    name="root",
)

AUTHORITY = pki.make_ca("client", "0" * 26, now=1.7e9).certificate_der
SPKI = pki.key_spki_der(KEY)
OTHERS_KEY = pki.key_spki_der(pki.generate_key())


def replaced(old: bytes, new: bytes) -> str:
    """The request with some of its bytes exchanged for as many others, in base64."""
    assert DER.count(old) == 1
    assert len(old) == len(new)
    return b64(DER.replace(old, new))


BODIES = [
    pytest.param({}, 422, "bad_object", id="E01-empty"),
    pytest.param([], 422, "bad_object", id="E01-list"),
    pytest.param(b"{", 400, "bad_json", id="E01-not-json"),
    pytest.param({"csr": None}, 422, "bad_object", id="E01-no-csr"),
    pytest.param({"csr": 7}, 422, "bad_object", id="E01-csr-number"),
    pytest.param({"csr": "not base64"}, 400, "bad_csr", id="E01-csr-not-base64"),
    pytest.param({"csr": b64(DER)[:40] + "\n" + b64(DER)[40:]}, 400, "bad_csr", id="V46-line-break"),
    pytest.param({"csr": " " + b64(DER)}, 400, "bad_csr", id="V46-space"),
    pytest.param({"csr": "-_8="}, 400, "bad_csr", id="V46-alphabet-of-urls"),
    pytest.param({"csr": "AAA"}, 400, "bad_csr", id="V46-no-padding"),
    pytest.param({"csr": "AAAA="}, 400, "bad_csr", id="V46-too-much-padding"),
    pytest.param({"csr": "x" * 8193}, 422, "bad_object", id="E14-csr-too-long"),
    pytest.param({"csr": b64(DER + b"\0" * 4096)}, 413, "too_large", id="E14-csr-over-4-KiB"),
    pytest.param({"csr": "A" * 40_000}, 413, "too_large", id="E14-csr-of-30-KB"),
    pytest.param({"csr": b64(b"hello\n" + pem(DER))}, 400, "one_csr", id="E02-text-before"),
    pytest.param({"csr": b64(pem(DER) * 2)}, 400, "one_csr", id="E02-two-blocks"),
    pytest.param({"csr": b64(KEY)}, 400, "private_key_received", id="E03-pem-key"),
    pytest.param({"csr": b64(PRIVATE)}, 400, "private_key_received", id="E03-der-key"),
    pytest.param({"csr": b64(pki.certificate_pem(AUTHORITY))}, 400, "one_csr", id="E03-pem-certificate"),
    pytest.param({"csr": b64(AUTHORITY)}, 400, "bad_csr", id="E03-der-certificate"),
    pytest.param({"csr": b64(DER + b"\0")}, 400, "bad_csr", id="E04-trailing-byte"),
    pytest.param({"csr": b64(b"\x30\x80" + DER[3:] + b"\0\0")}, 400, "bad_csr", id="E04-indefinite-length"),
    pytest.param({"csr": replaced(b"\x02\x01\x00", b"\x02\x01\x01")}, 400, "bad_csr", id="E05-version"),
    pytest.param({"csr": b64(DER[:100])}, 400, "bad_csr", id="E04-cut"),
    pytest.param({"csr": ""}, 400, "bad_csr", id="E04-empty"),
    pytest.param({"csr": b64(flipped(DER))}, 400, None, id="E06-signature-bit"),
    pytest.param({"csr": replaced(SPKI, OTHERS_KEY)}, 400, "bad_signature", id="E07-signed-by-another-key"),
    pytest.param({"csr": b64(asking(rsa.generate_private_key(65537, 1024)))}, 422, "key_type", id="E08-rsa-1024"),
    pytest.param({"csr": b64(asking(rsa.generate_private_key(65537, 2048)))}, 422, "key_type", id="E08-rsa"),
    pytest.param({"csr": b64(asking(ec.generate_private_key(ec.SECP384R1())))}, 422, "key_type", id="E09-p384"),
    pytest.param({"csr": b64(asking(ec.generate_private_key(ec.SECP256K1())))}, 422, "key_type", id="E09-secp256k1"),
    pytest.param({"csr": replaced(SPKI[27:], bytes(64))}, 400, "bad_csr", id="E10-not-on-the-curve"),
    pytest.param(
        {"csr": b64(asking(ec.generate_private_key(ec.SECP256R1()), digest=hashes.SHA512()))},
        422,
        "key_type",
        id="E11-other-digest",
    ),
    pytest.param(
        {"csr": replaced(bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040909"))},
        422,
        "key_type",
        id="E12-unknown-algorithm",
    ),
    pytest.param({"token_id": "zzzzzzzz"}, 401, "token_invalid", id="E23-unknown-id"),
    pytest.param({"secret": "0" * 26}, 401, "token_invalid", id="E22-wrong-secret"),
    pytest.param({"secret": "\N{SNOWMAN}" * 26}, 401, "token_invalid", id="E25-not-ascii"),
    pytest.param({"secret": ""}, 401, "token_invalid", id="E22-no-secret"),
    pytest.param({"token_id": ""}, 401, "token_invalid", id="E23-empty-id"),
    pytest.param({"token_id": "x" * 257}, 422, "bad_object", id="E23-long-id"),
    pytest.param({"token_id": "\N{SNOWMAN}" * 64}, 401, "token_invalid", id="E23-id-cut-within-a-character"),
    pytest.param({"name": "heater"}, 422, "token_name", id="E27-pattern"),
    pytest.param({"name": "Lamp-1"}, 422, "bad_name", id="E28-upper-case"),
    pytest.param({"name": "lamp_1"}, 422, "bad_name", id="E28-underscore"),
    pytest.param({"name": "lamp.1"}, 422, "bad_name", id="E28-dot"),
    pytest.param({"name": "lamp-" + "1" * 59}, 422, "bad_name", id="E28-64-characters"),
    pytest.param({"name": "lamp-\N{CYRILLIC SMALL LETTER A}"}, 422, "bad_name", id="E28-homoglyph"),
    pytest.param({"name": None}, 422, "bad_object", id="E28-null"),
    pytest.param({"facts": {f"f{n}": 1 for n in range(33)}}, 422, "bad_object", id="E29-33-facts"),
    pytest.param({"facts": {"a": {"b": 1}}}, 422, "bad_object", id="E29-nested"),
    pytest.param({"facts": {"a": "x" * 129}}, 422, "bad_object", id="E29-long"),
    pytest.param({"facts": []}, 422, "bad_object", id="E29-list"),
    pytest.param({"facts": {"a": "x" * 65536}}, 413, "too_large", id="E29-64-KiB"),
    pytest.param({"uid": 0}, 422, "unknown_field", id="R38-unknown-field"),
]


@pytest.mark.parametrize(("wrong", "status", "code"), BODIES)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_bad_enrolment_is_refused_and_costs_the_token_nothing(
    standing: Standing, wrong: Any, status: int, code: str | None
) -> None:
    standing.service.clock.advance(61)  # the count of failures starts anew
    token = await token_of(standing.admin, name="lamp-*", ttl_s=86400)
    good = enrolment(token, KEY, "lamp-9")
    body = {**good, **wrong} if isinstance(wrong, dict) and wrong else wrong
    async with standing.service.remote() as stranger:
        answer = await stranger.refused("POST", "/v1/enrol", body)

    assert (answer.status, answer.code if code else None) == (status, code)
    assert parse_token(token).secret.encode() not in answer.body
    listed = {one["id"]: one for one in (await standing.admin.ok("GET", "/v1/tokens"))["items"]}
    assert listed[parse_token(token).id]["used"] == 0
    assert await standing.unmoved()


async def test_a_token_buys_an_identity_of_our_profile_only_e13_e14(daemon: Service, admin: Admin) -> None:
    token = await token_of(admin, name="lamp-*", labels={"room": "kitchen"})
    async with daemon.remote() as stranger:
        answer = await stranger.call("POST", "/v1/enrol", {**enrolment(token, KEY, "lamp-1"), "csr": b64(GREEDY)})

    assert answer.status == 201
    certificate = x509.load_der_x509_certificate(certificate_in(answer.json))
    assert certificate.subject.rfc4514_string() == f"CN={answer.json['device_id']}"
    assert pki.identity_of(certificate_in(answer.json)).role == "device"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    status = (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]
    assert (status["identity"], status["id"]) == ("active", answer.json["device_id"])


async def test_nobody_learns_whether_a_token_exists_e22_e23(daemon: Service, admin: Admin) -> None:
    token = await token_of(admin)
    async with daemon.remote() as stranger:
        answers = [
            await stranger.refused("POST", "/v1/enrol", {**WRONG, "token_id": token_id})
            for token_id in (parse_token(token).id, "zzzzzzzz")
        ]
    told = [{**answer.json, "request_id": ""} for answer in answers]

    assert told[0] == told[1]
    assert [answer.status for answer in answers] == [401, 401]


async def test_a_token_of_another_fleet_is_refused_as_unknown_e26(
    daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    other = Service(tmp_path / "other", Clock())
    await other.start()
    try:
        async with other.admin() as elsewhere:
            token = await token_of(elsewhere)
        answer = await spend(daemon, token, pki.generate_key(), "lamp-1")
    finally:
        await other.stop()
        other.clean()

    assert (answer.status, answer.code) == (401, "token_invalid")
    assert (await admin.ok("GET", "/v1/devices"))["items"] == []


@pytest.mark.parametrize(
    "name", ["a\0b", "a\nb", "\N{RIGHT-TO-LEFT OVERRIDE}pmal", "x" * 64, "lamp-2"], ids=lambda name: ascii(name)[:20]
)
async def test_whatever_name_a_request_carries_only_its_key_is_taken_e15(
    daemon: Service, admin: Admin, name: str
) -> None:
    body = {**enrolment(await token_of(admin), KEY, "lamp-1"), "csr": b64(asking(loaded(KEY), name=name))}
    async with daemon.remote() as stranger:
        answer = await stranger.ok("POST", "/v1/enrol", body)
    subject = x509.load_der_x509_certificate(certificate_in(answer)).subject.rfc4514_string()

    assert (answer["name"], subject) == ("lamp-1", f"CN={answer['device_id']}")


async def test_a_device_that_joins_gets_the_tokens_schema_and_labels(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema())
    identity = await daemon.join(admin, "lamp-1", schema="lamp", labels={"room": "kitchen"})
    found = await admin.ok("GET", "/v1/devices/lamp-1")

    assert (found["metadata"]["labels"], found["spec"]["schema"]) == ({"room": "kitchen"}, "lamp")
    async with connected(daemon, identity) as lamp:
        assert await lamp.apply_next() == {"brightness": 80, "color": "green"}


@pytest.mark.parametrize(
    ("wish", "token", "given"),
    [
        pytest.param("lamp", "", "lamp", id="wished"),
        pytest.param("lamp", "heater", "heater", id="the-token-says"),
        pytest.param("toaster", "", None, id="unknown"),
        pytest.param("No Name", "", None, id="no-name"),
        pytest.param(7, "", None, id="no-text"),
    ],
)
async def test_a_device_may_wish_for_a_schema(
    daemon: Service, admin: Admin, wish: object, token: str, given: str | None
) -> None:
    await admin.apply(schema(), schema("heater", type="object"))
    made = await token_of(admin, **({"schema": token} if token else {}))
    async with daemon.remote() as stranger:
        await stranger.ok("POST", "/v1/enrol", {**enrolment(made, KEY, "lamp-1"), "facts": {"schema": wish}})
    found = await admin.ok("GET", "/v1/devices/lamp-1")

    assert found["spec"].get("schema") == given


async def test_a_wish_changes_nothing_about_a_device_known_from_files(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), schema("heater", type="object"), device("lamp-1"))
    made = await token_of(admin)
    async with daemon.remote() as stranger:
        await stranger.ok("POST", "/v1/enrol", {**enrolment(made, KEY, "lamp-1"), "facts": {"schema": "heater"}})

    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["spec"]["schema"] == "lamp"


async def test_a_device_known_from_files_keeps_what_the_files_say(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), schema("heater", type="object"), device("lamp-1", labels={"room": "hall"}, color="red"))
    before = await admin.ok("GET", "/v1/devices/lamp-1")
    await daemon.join(admin, "lamp-1", schema="heater", labels={"room": "kitchen", "floor": "1"})
    after = await admin.ok("GET", "/v1/devices/lamp-1")

    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == {"room": "hall", "floor": "1"}
    assert after["metadata"]["id"] == before["metadata"]["id"]


async def test_a_hundred_parallel_uses_of_one_token_buy_one_certificate_s3(daemon: Service, admin: Admin) -> None:
    token = await token_of(admin, name="lamp-*")
    keys = [pki.generate_key() for _ in range(100)]
    async with daemon.remote() as stranger:
        bodies = [enrolment(token, key, f"lamp-{number}") for number, key in enumerate(keys)]
        answers = await asyncio.gather(*[stranger.call("POST", "/v1/enrol", body) for body in bodies])

    assert sorted(answer.status for answer in answers) == [201] + [409] * 99
    assert {answer.code for answer in answers if answer.status == 409} == {"token_used"}
    devices = (await admin.ok("GET", "/v1/devices"))["items"]
    assert [one["status"]["identity"] for one in devices] == ["active"]


async def test_a_token_of_three_uses_is_used_three_times(daemon: Service, admin: Admin) -> None:
    token = await token_of(admin, uses=3)
    statuses = [(await spend(daemon, token, pki.generate_key(), f"lamp-{number}")).status for number in range(4)]

    assert statuses == [201, 201, 201, 409]


async def test_a_lost_answer_is_given_again_to_the_same_key_e19_e20(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    token = await token_of(admin, uses=2, ttl_s=60)
    first, other = pki.generate_key(), pki.generate_key()
    lost = await spend(daemon, token, first, "lamp-1")
    await spend(daemon, token, other, "lamp-2")
    clock.advance(300)
    again = await spend(daemon, token, first, "lamp-1")
    stranger = await spend(daemon, token, pki.generate_key(), "lamp-3")
    clock.advance(601)
    late = await spend(daemon, token, first, "lamp-1")

    assert (lost.status, again.status) == (201, 201)
    assert again.json["device_id"] == lost.json["device_id"]
    assert (stranger.status, stranger.code) == (401, "token_expired")
    assert (late.status, late.code) == (401, "token_expired")
    async with connected(daemon, identity_in(again.json, first)):
        pass


async def test_a_repeated_use_cannot_take_another_name(daemon: Service, admin: Admin) -> None:
    token, key = await token_of(admin), pki.generate_key()
    await spend(daemon, token, key, "lamp-1")
    answer = await spend(daemon, token, key, "lamp-2")

    assert (answer.status, answer.code) == (409, "key_in_use")
    assert [one["metadata"]["name"] for one in (await admin.ok("GET", "/v1/devices"))["items"]] == ["lamp-1"]


@pytest.mark.parametrize("ending", ["revoke", "delete"])
async def test_whoever_was_thrown_out_cannot_repeat_its_token(daemon: Service, admin: Admin, ending: str) -> None:
    token, key = await token_of(admin), pki.generate_key()
    await spend(daemon, token, key, "lamp-1")
    if ending == "revoke":
        await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    else:
        await admin.ok("DELETE", "/v1/devices/lamp-1")
    answer = await spend(daemon, token, key, "lamp-1")

    assert (answer.status, answer.code) == (409, "token_used")


async def test_a_revoked_device_joins_again_with_a_new_token(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    old = await daemon.join(admin, "lamp-1")
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    new = await daemon.join(admin, "lamp-1")

    assert new.id == old.id
    async with connected(daemon, new) as lamp:
        assert (await lamp.apply_next())["color"] == "red"
    async with daemon.remote(old) as thief:
        answer = await thief.refused("GET", "/v1/device/config")
    assert (answer.status, answer.code) == (403, "certificate_revoked")


async def test_a_revoked_device_joins_again_with_its_old_key(daemon: Service, admin: Admin) -> None:
    identity = await daemon.join(admin, "lamp-1")
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    answer = await spend(daemon, await token_of(admin), identity.key, "lamp-1")

    assert answer.status == 201
    async with daemon.remote(identity) as old:
        assert (await old.refused("GET", "/v1/device/config")).code == "certificate_revoked"


async def test_a_deleted_device_is_another_one_when_it_joins_again(daemon: Service, admin: Admin) -> None:
    identity = await daemon.join(admin, "lamp-1")
    await admin.ok("DELETE", "/v1/devices/lamp-1")
    answer = await spend(daemon, await token_of(admin), identity.key, "lamp-1")

    assert answer.status == 201
    assert answer.json["device_id"] != identity.id


async def test_who_is_deleted_or_revoked_stands_in_the_journal_and_a_dry_run_writes_nothing(
    daemon: Service, admin: Admin
) -> None:
    revoked, deleted = await daemon.join(admin, "lamp-1"), await daemon.join(admin, "lamp-2")
    await admin.ok("DELETE", "/v1/devices/lamp-2?dry_run=1")
    journal = daemon.data_dir / "data" / "revocations"
    before = read_ends(journal)
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    await admin.ok("DELETE", "/v1/devices/lamp-2")

    assert before == {}
    assert set(read_ends(journal)) == {("device", revoked.id), ("device", deleted.id)}


async def test_a_name_in_use_is_not_given_away_e27(daemon: Service, admin: Admin) -> None:
    await daemon.join(admin, "lamp-1")
    token = await token_of(admin)
    answer = await spend(daemon, token, pki.generate_key(), "lamp-1")

    assert (answer.status, answer.code) == (409, "name_taken")
    assert (await spend(daemon, token, pki.generate_key(), "lamp-2")).status == 201


async def test_a_key_in_use_is_not_taken_e18(daemon: Service, admin: Admin) -> None:
    identity = await daemon.join(admin, "lamp-1")
    answer = await spend(daemon, await token_of(admin), identity.key, "lamp-2")
    authority = daemon.app._folder.authorities.client.key_pem
    ours = await spend(daemon, await token_of(admin), authority, "lamp-3")

    assert (answer.status, answer.code) == (409, "key_in_use")
    assert (ours.status, ours.code) == (409, "key_in_use")
    assert len((await admin.ok("GET", "/v1/devices"))["items"]) == 1


async def test_a_token_ends_with_its_time_e24(daemon: Service, admin: Admin, clock: Clock) -> None:
    token = await token_of(admin, ttl_s=60)
    clock.advance(60)
    answer = await spend(daemon, token, pki.generate_key(), "lamp-1")

    assert (answer.status, answer.code) == (401, "token_expired")


async def test_setting_the_clock_back_revives_no_token_e24(daemon: Service, admin: Admin, clock: Clock) -> None:
    token = await token_of(admin, ttl_s=60)
    clock.advance(61)
    clock.jump(-200)  # less than what makes the daemon doubt its clock
    answer = await spend(daemon, token, pki.generate_key(), "lamp-1")
    late = await token_of(admin, ttl_s=60)

    assert (answer.status, answer.code) == (401, "token_expired")
    assert (await spend(daemon, late, pki.generate_key(), "lamp-1")).status == 201


async def test_a_revoked_token_is_worth_nothing(daemon: Service, admin: Admin) -> None:
    token = await token_of(admin)
    await admin.ok("DELETE", f"/v1/tokens/{parse_token(token).id}")
    answer = await spend(daemon, token, pki.generate_key(), "lamp-1")

    assert (answer.status, answer.code) == (401, "token_invalid")


async def test_a_token_buys_only_what_it_is_for(daemon: Service, admin: Admin) -> None:
    join, login = await token_of(admin), await token_of(admin, kind="admin")
    device_as_admin = await spend(daemon, join, pki.generate_key(), "ada", "/v1/login")
    admin_as_device = await spend(daemon, login, pki.generate_key(), "lamp-1")

    assert (device_as_admin.status, device_as_admin.code) == (401, "token_invalid")
    assert (admin_as_device.status, admin_as_device.code) == (401, "token_invalid")


async def test_five_failures_within_a_minute_are_enough_e30(daemon: Service, admin: Admin, clock: Clock) -> None:
    async with daemon.remote() as stranger:
        answers = [await stranger.refused("POST", "/v1/enrol", WRONG) for _ in range(6)]
        clock.advance(61)
        later = await stranger.refused("POST", "/v1/enrol", WRONG)

    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert (answers[-1].code, int(answers[-1].headers["Retry-After"]) > 0) == ("rate_limited", True)
    assert later.status == 401


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
async def test_setting_the_clock_neither_ends_nor_extends_the_wait_after_failures_k1(
    daemon: Service, admin: Admin, clock: Clock, jump_s: float
) -> None:
    wrong = {"token_id": "zzzzzzzz", "secret": "0" * 26, "csr": csr_of(KEY), "name": "lamp-1"}
    async with daemon.remote() as stranger:
        for _ in range(5):
            await stranger.refused("POST", "/v1/enrol", wrong)
        clock.jump(jump_s)
        limited = await stranger.refused("POST", "/v1/enrol", wrong)
        clock.advance(61)
        later = await stranger.refused("POST", "/v1/enrol", wrong)

    assert (limited.status, int(limited.headers["Retry-After"]) <= 61, later.status) == (429, True, 401)


async def test_setting_the_clock_back_does_not_extend_the_hour_of_renewals_k1(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with daemon.remote(identity) as lamp:
        for _ in range(3):
            await lamp.call("POST", "/v1/renew", {})
        clock.jump(-200)
        limited = await lamp.refused("POST", "/v1/renew", {})
        clock.advance(3601)
        later = await lamp.call("POST", "/v1/renew", {})

    assert (limited.status, int(limited.headers["Retry-After"]) <= 3601, later.status) == (429, True, 200)


@pytest.mark.parametrize("years", [-56, -1, 30], ids=lambda years: f"{years:+}y")
async def test_a_clock_that_cannot_be_right_lets_devices_in_and_issues_nothing_k1(
    daemon: Service, admin: Admin, clock: Clock, years: int
) -> None:
    identity, token = await daemon.join(admin, "lamp-1"), await token_of(admin)
    clock.jump(years * 365 * pki.DAY_S)
    await daemon.restart()
    async with daemon.remote(identity) as lamp, daemon.admin() as operator:
        served = await lamp.call("GET", "/v1/device/config")
        renewing = await lamp.refused("POST", "/v1/renew", {})
        warned = (await operator.ok("GET", "/v1/status"))["warnings"]
    refused = await spend(daemon, token, KEY, "lamp-2")
    clock.jump(-years * 365 * pki.DAY_S)

    assert (served.status, renewing.code, refused.status) == (200, "clock_suspect", 401 if years > 0 else 503)
    assert any("clock says" in warning for warning in warned)
    async with daemon.remote(identity) as lamp:
        assert (await lamp.call("POST", "/v1/renew", {})).status == 200


async def test_guesses_made_at_once_are_counted_like_those_in_a_row_e30(daemon: Service) -> None:
    async with daemon.remote() as stranger:
        guesses = [stranger.refused("POST", "/v1/enrol", WRONG) for _ in range(62)]
        answers = await asyncio.gather(*guesses)

    assert sorted(answer.status for answer in answers) == [401] * 5 + [429] * 57


async def test_who_holds_a_token_joins_beside_any_number_of_guesses(daemon: Service, admin: Admin) -> None:
    token, login = await token_of(admin), await token_of(admin, kind="admin")
    async with daemon.remote() as stranger:
        await asyncio.gather(*[stranger.refused("POST", "/v1/enrol", WRONG) for _ in range(62)])
        joined = await stranger.call("POST", "/v1/enrol", enrolment(token, pki.generate_key(), "lamp-1"))
        logged_in = await stranger.call("POST", "/v1/login", enrolment(login, pki.generate_key(), "ada"))

    assert (joined.status, logged_in.status) == (201, 201)


async def test_a_guess_writes_its_record_and_no_more_and_its_request_for_a_certificate_is_not_read(
    daemon: Service, admin: Admin
) -> None:
    commits = (await admin.ok("GET", "/v1/status"))["store"]["commits"]
    async with daemon.remote() as stranger:
        refused = await stranger.refused("POST", "/v1/enrol", {**WRONG, "csr": "AAAA"})

    assert (refused.status, refused.code) == (401, "token_invalid")
    assert (await admin.ok("GET", "/v1/status"))["store"]["commits"] == commits + 1
    assert (await admin.ok("GET", "/v1/audit"))["items"][-1]["what"] == "token.refused"


async def test_nothing_is_issued_while_the_clock_is_in_doubt_e48(daemon: Service, admin: Admin, clock: Clock) -> None:
    token = await token_of(admin)
    await daemon.app.authority.timekeeper.note()
    clock.advance(-400)
    refused = await spend(daemon, token, KEY, "lamp-1")
    warned = (await admin.ok("GET", "/v1/status"))["warnings"]
    clock.advance(400)

    assert (refused.status, refused.code) == (503, "clock_suspect")
    assert any("clock" in warning for warning in warned)
    assert (await spend(daemon, token, KEY, "lamp-1")).status == 201


# ---- renewal ------------------------------------------------------------------------------------------


async def test_the_same_key_gets_a_new_certificate_and_the_old_one_goes_at_first_use(
    daemon: Service, admin: Admin
) -> None:
    old = await daemon.join(admin, "lamp-1")
    async with daemon.remote(old) as lamp:
        new = renewed(old, await lamp.ok("POST", "/v1/renew", {}))
        assert (await lamp.call("GET", "/v1/device/config")).status == 200
        async with daemon.remote(new) as fresh:
            assert (await fresh.call("GET", "/v1/device/config")).status == 200
        gone = await lamp.refused("GET", "/v1/device/config")

    assert pki.spki_sha256(new.certificate) == pki.spki_sha256(old.certificate)
    assert (gone.status, gone.code) == (403, "certificate_superseded")


async def test_a_new_key_is_taken_and_the_old_certificate_cannot_renew_any_more_e39(
    daemon: Service, admin: Admin
) -> None:
    old, key = await daemon.join(admin, "lamp-1"), pki.generate_key()
    async with daemon.remote(old) as lamp:
        answer = await lamp.ok("POST", "/v1/renew", {"csr": csr_of(key)})
        async with connected(daemon, renewed(old, answer, key)):
            pass
        refused = await lamp.refused("POST", "/v1/renew", {})

    assert answer["device_id"] == old.id
    assert (refused.status, refused.code) == (403, "certificate_superseded")


async def test_a_lost_renewal_leaves_a_working_slot_e42(daemon: Service, admin: Admin) -> None:
    old = await daemon.join(admin, "lamp-1")
    async with daemon.remote(old) as lamp:
        lost = renewed(old, await lamp.ok("POST", "/v1/renew", {}))
        kept = renewed(old, await lamp.ok("POST", "/v1/renew", {}))
    async with daemon.remote(lost) as stale:
        refused = await stale.refused("GET", "/v1/device/config")
    async with connected(daemon, kept):
        pass

    assert (refused.status, refused.code) == (403, "certificate_superseded")


@pytest.mark.parametrize(
    ("days", "status", "code"),
    [
        pytest.param(0, 200, "", id="E39-valid"),
        pytest.param(90 + 1, 200, "", id="E39-expired-a-day"),
        pytest.param(90 + 179, 200, "", id="E39-expired-179-days"),
        pytest.param(90 + 181, 403, "approval_required", id="E39-expired-181-days"),
    ],
)
async def test_an_expired_certificate_renews_itself_for_half_a_year(
    daemon: Service, admin: Admin, clock: Clock, days: int, status: int, code: str
) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with daemon.remote(identity) as lamp:
        await lamp.call("GET", "/v1/device/config")
        clock.advance(days * pki.DAY_S)
        answer = await lamp.call("POST", "/v1/renew", {})

    assert (answer.status, answer.code if status != 200 else "") == (status, code)
    if status == 200:
        left_s = answer.json["renew_after"] - answer.json["now"]
        assert left_s == pytest.approx(DEVICE_LIFETIME_S * 2 / 3, rel=0.01)
        async with connected(daemon, renewed(identity, answer.json)):
            pass


async def test_a_certificate_never_used_renews_e39(daemon: Service, admin: Admin) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with daemon.remote(identity) as lamp:
        assert (await lamp.call("POST", "/v1/renew", {})).status == 200


async def test_a_revoked_certificate_does_not_renew_e39(daemon: Service, admin: Admin) -> None:
    identity = await daemon.join(admin, "lamp-1")
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    async with daemon.remote(identity) as lamp:
        answer = await lamp.refused("POST", "/v1/renew", {})

    assert (answer.status, answer.code) == (403, "certificate_revoked")


async def test_three_renewals_an_hour_are_enough_e40(daemon: Service, admin: Admin, clock: Clock) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with daemon.remote(identity) as lamp:
        statuses = [(await lamp.call("POST", "/v1/renew", {})).status for _ in range(4)]
        limited = await lamp.refused("POST", "/v1/renew", {})
        clock.advance(3601)
        later = await lamp.call("POST", "/v1/renew", {})

    assert statuses == [200, 200, 200, 429]
    assert 0 < int(limited.headers["Retry-After"]) <= 3601
    assert later.status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"csr": b64(flipped(DER))}, 400, None, id="E06"),
        pytest.param({"csr": replaced(SPKI, OTHERS_KEY)}, 400, "bad_signature", id="E41-signed-by-the-old-key"),
        pytest.param({"csr": b64(KEY)}, 400, "private_key_received", id="E03"),
        pytest.param({"csr": None}, 422, "bad_object", id="null"),
        pytest.param({"name": "lamp-2"}, 422, "unknown_field", id="name"),
    ],
)
async def test_a_bad_renewal_changes_nothing(
    daemon: Service, admin: Admin, body: dict[str, Any], status: int, code: str | None
) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with daemon.remote(identity) as lamp:
        answer = await lamp.refused("POST", "/v1/renew", body)
        assert (answer.status, answer.code if code else None) == (status, code)
        assert (await lamp.call("GET", "/v1/device/config")).status == 200


async def test_a_renewal_cannot_take_the_key_of_another_e18(daemon: Service, admin: Admin) -> None:
    one, other = await daemon.join(admin, "lamp-1"), await daemon.join(admin, "lamp-2")
    async with daemon.remote(one) as lamp:
        answer = await lamp.refused("POST", "/v1/renew", {"csr": csr_of(other.key)})

    assert (answer.status, answer.code) == (409, "key_in_use")


# ---- operators ----------------------------------------------------------------------------------------


async def test_an_operator_logs_in_and_renews(daemon: Service, admin: Admin) -> None:
    key = pki.generate_key()
    answer = await spend(daemon, await token_of(admin, kind="admin"), key, "ada", "/v1/login")
    ada = identity_in(answer.json, key)
    async with daemon.remote(ada) as remote:
        assert (await remote.ok("GET", "/v1/whoami"))["name"] == "ada"
        new = renewed(ada, await remote.ok("POST", "/v1/renew", {}))
    async with daemon.remote(new) as remote:
        await remote.apply(schema())

    assert answer.status == 201
    assert (await admin.ok("GET", "/v1/revisions/1"))["author"] == "ada"


async def test_a_login_token_may_name_the_operator(daemon: Service, admin: Admin) -> None:
    token = await token_of(admin, kind="admin", name="ada")
    other = await spend(daemon, token, pki.generate_key(), "bob", "/v1/login")
    ada = await spend(daemon, token, pki.generate_key(), "ada", "/v1/login")

    assert (other.status, other.code) == (422, "token_name")
    assert ada.status == 201


async def test_no_secret_is_ever_logged_or_told_s6(
    daemon: Service, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    token = await token_of(admin, name="lamp-*")
    secret, key = parse_token(token).secret, pki.generate_key()
    good = enrolment(token, key, "lamp-1")
    async with daemon.remote() as stranger:
        answers = [
            await stranger.call("POST", "/v1/enrol", body)
            for body in (
                {**good, "name": "heater"},
                {**good, "csr": "AAAA"},
                {**good, "csr": b64(key)},
                {**good, "more": secret},
                {**good, "token_id": secret},
                {**good, "csr": b64(asking(loaded(key), password=b"hunter2-challenge"))},
                {**good, "csr": csr_of(pki.generate_key())},
            )
        ]
    told = (
        b"".join(answer.body for answer in answers)
        + str(
            [
                await admin.ok("GET", path)
                for path in ("/v1/tokens", "/v1/revisions/1", "/v1/events?since=0", "/v1/status")
            ]
        ).encode()
    )

    assert [answer.status for answer in answers] == [422, 400, 400, 422, 401, 201, 409]
    assert secret.encode() not in told
    assert secret not in caplog.text
    assert "hunter2" not in caplog.text + told.decode()  # E16
    assert key.decode().splitlines()[1] not in caplog.text + told.decode()
