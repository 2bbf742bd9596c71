"""Tokens on a real store: kept as hashes, swept when they pile up, spent or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hengd.datadir import open_data_dir
from hengd.records import TokenRecord, pack
from hengd.rules import tokens as tokens_module
from hengd.rules.authority import Authority
from hengd.rules.certificates import identity_state
from hengd.rules.changes import Changes
from hengd.rules.enrolment import Enrolment
from hengd.rules.outcome import Author
from hengd.rules.schemas import SchemaCache
from hengd.rules.tokens import Tokens
from hengd.rules.vault import Vault
from hengd.store import Store
from henge_protocol import pki
from henge_protocol.errors import Conflict, HengeError, Invalid
from henge_protocol.joining import JoinToken, parse_token

NOW = 1_800_000_000.0
KEY = pki.generate_key()


class Desk:
    """Tokens with a clock that can be moved."""

    def __init__(self, store: Store, authority_of: Any) -> None:
        self.now = NOW
        self.store = store
        numbers = iter(range(10_000))
        self.authority: Authority = authority_of(lambda: self.now)
        changes = Changes(
            SchemaCache(), Vault(lambda: [bytes(32)], "memory"), lambda: self.now,
            lambda: pki.new_id(bytes([next(numbers)]) * 16),
        )  # fmt: skip
        enrolment = Enrolment(self.authority.issuer, changes)
        self.tokens = Tokens(store, self.authority, enrolment, clock=lambda: self.now, monotonic=lambda: self.now)

    async def token(self, **wanted: Any) -> JoinToken:
        """A new token, read."""
        return parse_token((await self.tokens.create(wanted, Author("ada", "test", may_end_identities=True)))[0])

    async def enrol(self, token: JoinToken, name: str = "lamp-1", key: bytes = KEY) -> dict[str, Any]:
        """Spend a token."""
        csr = pki.make_csr(key, name)
        return await self.tokens.enrol(token.id, token.secret, csr, name, address="10.0.0.1", board=False)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    folder = open_data_dir(tmp_path / "state", allow_network_fs=True, now=NOW, map_bytes=2**24)
    store = Store.open(folder.database, map_bytes=2**24)
    try:
        authority = partial(Authority, store, folder.authorities, folder.journal, is_rescue=lambda: False)
        yield Desk(store, lambda clock: authority(clock=clock, monotonic=clock))
    finally:
        await store.close()
        folder.close()


async def test_the_store_never_holds_the_secret(desk: Desk) -> None:
    token = await desk.token()
    with desk.store.read() as tx:
        kept = [payload for _, payload in tx.scan("tokens")]

    assert len(kept) == 1
    assert token.secret.encode() not in kept[0]


async def test_a_refusal_spends_nothing_and_makes_nothing(desk: Desk) -> None:
    token = await desk.token(name="lamp-*")
    for name in ("heater", "Lamp"):
        with pytest.raises(Invalid):
            await desk.enrol(token, name)
    with desk.store.read() as tx:
        made = [database for database in ("certs", "spki", "ids", "revisions") for _ in tx.scan(database)]

    assert made == []
    assert desk.tokens.list()[0].used == 0


@pytest.mark.parametrize(("pattern", "name", "fits"), [
    ("*", "anything", True),
    ("lamp-*", "lamp-1", True),
    ("lamp-*", "lamp-", False),
    ("lamp-?", "lamp-1", True),
    ("lamp-?", "lamp-12", False),
    ("lamp-1", "lamp-1", True),
    ("lamp-1", "lamp-2", False),
])  # fmt: skip
async def test_a_pattern_says_which_names(desk: Desk, pattern: str, name: str, fits: bool) -> None:
    token = await desk.token(name=pattern)
    try:
        identity = await desk.enrol(token, name)
    except HengeError as error:
        assert not fits
        assert error.code in ("token_name", "bad_name")
    else:
        assert fits
        assert identity["name"] == name


async def test_tokens_that_ended_a_day_ago_make_room_for_new_ones(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_TOKENS", 3)
    for _ in range(3):
        await desk.token(ttl_s=60)
    with pytest.raises(Conflict):
        await desk.token()
    for _ in range(25):
        desk.now += 3600
        await desk.authority.timekeeper.note()
    await desk.token()

    assert len(desk.tokens.list()) == 1


async def test_a_clock_that_leaps_ahead_throws_no_token_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_TOKENS", 1)
    token = await desk.token(ttl_s=60)
    desk.now += 365 * 86400
    with pytest.raises(Conflict):
        await desk.token()
    desk.now = NOW

    assert (await desk.enrol(token))["name"] == "lamp-1"


@pytest.mark.parametrize("is_journal_broken", [True, False])
async def test_a_replacement_ends_the_identity_and_makes_a_token_or_neither(
    desk: Desk, tmp_path: Path, is_journal_broken: bool
) -> None:
    device = (await desk.enrol(await desk.token()))["device_id"]
    before = len(desk.tokens.list())
    desk.authority.ends._journal = tmp_path if is_journal_broken else desk.authority.ends._journal
    with suppress(IsADirectoryError):
        await desk.tokens.replace("lamp-1", {"ttl_s": 60}, Author("ada", "test", may_end_identities=True))
    with desk.store.read() as tx:
        state = identity_state(tx, "device", device)

    made = len(desk.tokens.list()) - before
    assert (state, made) == (("active", 0) if is_journal_broken else ("revoked", 1))
    assert desk.authority.ends.is_cut("device", device) is not is_journal_broken


async def test_an_older_record_without_new_fields_is_read(desk: Desk) -> None:
    old = TokenRecord(id="abc", kind="join", secret_sha256="0" * 64, expires=NOW + 60, created=NOW)
    payload = pack(old)[:-1] + b',"last_spki":"x"}'
    await desk.store.write(lambda tx: tx.put("tokens", b"abc", payload))

    assert desk.tokens.list() == [old]


async def test_an_identity_says_when_to_renew_and_whom_to_trust(desk: Desk) -> None:
    identity = await desk.enrol(await desk.token())

    assert identity["now"] == int(NOW)
    assert identity["renew_after"] == pytest.approx(NOW + 60 * 86400, abs=10)
    assert identity["fleet"] == desk.authority.fleet


async def test_a_lost_answer_is_repeated_for_ten_minutes_only(desk: Desk) -> None:
    token = await desk.token()
    await desk.enrol(token)
    desk.now += 600
    again = await desk.enrol(token)
    desk.now += 601
    with pytest.raises(Conflict) as refusal:
        await desk.enrol(token)

    assert again["name"] == "lamp-1"
    assert refusal.value.code == "token_used"


async def test_a_key_known_by_another_way_is_no_repetition(desk: Desk) -> None:
    first = await desk.token(uses=1)
    await desk.enrol(first)
    second = await desk.token(uses=1)
    await desk.enrol(second, key=KEY)

    assert [token.used for token in desk.tokens.list()] == [1, 1]
