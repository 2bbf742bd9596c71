"""Identities on a real store: how they end, and that an end outlasts an older copy of the store."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from hengd.datadir import DataDir, open_data_dir
from hengd.journal import append_end, read_ends
from hengd.records import CertificateRecord
from hengd.rules.authority import ALARM_EVERY_S, ALARMS_AT_ONCE, Authority, Caller
from hengd.rules.certificates import activate, certificates_of, identity_state
from hengd.rules.outcome import Author
from hengd.store import Store
from henge_protocol import pki
from henge_protocol.errors import Denied

NOW = 1_800_000_000.0
LAMP = pki.new_id(bytes(16))

ADA = Author("ada", "test", may_end_identities=True)


class Registry:
    """An authority with a clock that can be moved; may be started again on the same folder."""

    def __init__(self, store: Store, folder: DataDir) -> None:
        self.now = NOW
        self.store = store
        self.journal = folder.journal
        self._folder = folder
        self.start()

    def start(self) -> None:
        """A new authority, as after a restart."""
        self.authority = Authority(
            self.store, self._folder.authorities, self.journal,
            is_rescue=lambda: False, clock=lambda: self.now, monotonic=lambda: self.now,
        )  # fmt: skip

    async def issue(self, subject: str = "ada", role: str = "admin") -> bytes:
        """A new certificate, by token."""
        spki = pki.key_spki_der(pki.generate_key())

        def operation(tx: object) -> dict[str, str]:
            return self.authority.issuer.issue(
                tx, role=role, subject=subject, name=subject, spki_der=spki, via="token", by="t", board=False,  # type: ignore[arg-type]
                author=ADA,
            )  # fmt: skip

        return b64decode((await self.store.write(operation))["certificate"])

    def records(self, subject: str = "ada", role: str = "admin") -> list[CertificateRecord]:
        """What the list has of an identity."""
        with self.store.read() as tx:
            return [record for _, record in certificates_of(tx, role, subject)]

    def code(self, certificate: bytes) -> str:
        """``ok``, or the code of the refusal."""
        try:
            self.authority.identify(certificate)
        except Denied as error:
            return error.code
        return "ok"

    def forge(self, subject: str) -> bytes:
        """A device's certificate made with the stolen key of the authority."""
        spki, fleet = pki.key_spki_der(pki.generate_key()), self._folder.authorities.fleet
        return pki.issue_client(
            self._folder.authorities.client, spki, fleet_id=fleet, role="device", subject=subject, now=NOW,
            lifetime_s=3600.0,
        )  # fmt: skip

    async def settle(self) -> None:
        """Wait for what is queued."""
        await self.store.write(lambda tx: None)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    folder = open_data_dir(tmp_path / "state", allow_network_fs=True, now=NOW, map_bytes=2**24)
    store = Store.open(folder.database, map_bytes=2**24)
    try:
        yield Registry(store, folder)
    finally:
        await store.close()
        folder.close()


async def test_a_link_that_cannot_be_closed_keeps_neither_the_others_nor_the_commit(registry: Registry) -> None:
    ada, closed = await registry.issue(), []

    def broken() -> None:
        raise ValueError("a fault of ours")

    for close in (broken, lambda: closed.append("a"), lambda: closed.append("b")):
        registry.authority.ends.hold("admin", "ada", close)
    await registry.authority.ends.revoke("admin", "ada", ADA)

    assert sorted(closed) == ["a", "b"]
    assert [record.state for record in registry.records()] == ["revoked"]
    assert registry.code(ada) == "certificate_revoked"


async def test_a_renewal_behind_a_revocation_is_told_of_it(registry: Registry) -> None:
    ada = await registry.issue()
    caller = registry.authority.identify(ada)
    _, renewal = await asyncio.gather(
        registry.authority.ends.revoke("admin", "ada", ADA),
        registry.authority.renew(caller, ada, None, board=False, origin="test"),
        return_exceptions=True,
    )

    assert isinstance(renewal, Denied)
    assert renewal.code == "certificate_revoked"
    assert len(registry.records()) == 1


async def test_an_older_copy_of_the_store_revives_nobody(registry: Registry) -> None:
    ada, bob = await registry.issue("ada"), await registry.issue("bob")
    append_end(registry.journal, NOW + 5, "admin", "ada", durable=True)
    registry.start()
    at_once = [registry.code(one) for one in (ada, bob)]
    await registry.settle()

    assert at_once == [registry.code(one) for one in (ada, bob)] == ["certificate_revoked", "ok"]
    with registry.store.read() as tx:
        assert [identity_state(tx, "admin", name) for name in ("ada", "bob")] == ["revoked", "active"]


async def test_who_came_back_after_an_end_stays_over_a_restart(registry: Registry) -> None:
    old = await registry.issue()
    registry.now += 0.9
    await registry.authority.ends.revoke("admin", "ada", ADA)
    registry.now -= 200  # within what the clock may go back
    registry.authority.ends.restored("admin", "ada")
    new = await registry.issue()
    registry.start()
    await registry.settle()

    assert [registry.code(one) for one in (old, new)] == ["certificate_revoked", "ok"]


async def test_an_end_covers_certificates_from_before_the_clock_was_set_back(registry: Registry) -> None:
    await registry.issue()
    registry.now -= 200
    await registry.authority.ends.revoke("admin", "ada", ADA)

    assert read_ends(registry.journal)["admin", "ada"] == NOW


async def test_superseded_certificates_that_expired_are_forgotten_at_the_next(registry: Registry) -> None:
    first = await registry.issue(LAMP, "device")
    await registry.store.write(lambda tx: activate(tx, pki.fingerprint(first)))
    for _ in range(3):
        registry.now += 60 * pki.DAY_S
        sha256 = pki.fingerprint(await registry.issue(LAMP, "device"))
        await registry.store.write(partial(activate, sha256=sha256))
    states = [record.state for record in registry.records(LAMP, "device")]
    with registry.store.read() as tx:
        keys = [key for key, owner in tx.scan("spki") if owner == f"device:{LAMP}".encode()]

    assert sorted(states) == ["active", "superseded"]
    assert len(keys) == 2
    assert registry.code(first) == "unknown_certificate"


async def test_a_caller_without_certificate_is_nobody(registry: Registry) -> None:
    assert registry.authority.identify(None) == Caller("nobody")


async def test_a_certificate_made_with_the_stolen_key_is_refused_and_told_t26(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    forged = registry.forge(LAMP)
    with pytest.raises(Denied) as refusal:
        registry.authority.identify(forged, "192.168.1.66")

    assert refusal.value.code == "unknown_certificate"
    (told,) = caplog.records
    assert (told.levelname, told.event, told.remote) == ("WARNING", "unlisted_certificate", "192.168.1.66")  # type: ignore[attr-defined]
    assert pki.format_fingerprint(pki.fingerprint(forged)) in told.getMessage()


async def test_a_flood_of_such_certificates_is_a_few_lines_t26(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    for pause_s in (0.0, ALARM_EVERY_S):
        registry.now += pause_s
        for _ in range(2 * ALARMS_AT_ONCE):
            assert registry.code(registry.forge(LAMP)) == "unknown_certificate"

    assert len(caplog.records) == ALARMS_AT_ONCE + 1
