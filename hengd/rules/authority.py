"""Who may speak: our two certificate authorities, the allow-list, live identities and their end.

A certificate is a key to look up, never a grant: one that chains to our client authority and is not on the
list is refused. Revoking flags the identity in memory, closes its links, commits together with a line of the journal,
and closes what was opened meanwhile; the flag keeps configuration from whatever is in between.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hengd.journal import append_end, read_ends
from hengd.records import CertificateRecord
from hengd.rules import audit
from hengd.rules.certificates import (
    Operator,
    activate,
    add_certificate,
    certificates_of,
    drop_spent,
    find_certificate,
    identity_state,
    is_ended,
    last_issued,
    live_operators,
    revoke_all,
    supersede_unused,
)  # fmt: skip
from hengd.rules.fleet import device_by_id, read_meta, required_object
from hengd.rules.limits import RateLimit
from hengd.rules.notes import Cut
from hengd.rules.outcome import Author
from hengd.rules.timekeeping import Timekeeper
from hengd.store import Reader, Store, Transaction
from henge_protocol import pki
from henge_protocol.csr import read_csr
from henge_protocol.errors import Conflict, Denied, Limited, NotFound, StorageFull

log = logging.getLogger("hengd.authority")

DEVICE_LIFETIME_S: Final = 90 * pki.DAY_S
BOARD_LIFETIME_S: Final = 397 * pki.DAY_S
"""Boards renew rarely: each renewal is a handshake and a write to flash."""
ADMIN_LIFETIME_S: Final = 30 * pki.DAY_S
EXPIRED_OK_S: Final = 180 * pki.DAY_S
"""How long after its end a certificate may still renew itself; a drawer is not an attack."""
RENEW_AT: Final = 2 / 3
MAX_RENEWALS_PER_HOUR: Final = 3
ALARM_EVERY_S: Final = 600.0
"""Between two lines about certificates that are not on the list, in the long run."""
ALARMS_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is behind a request: role ``device``, ``admin`` or ``nobody``."""

    role: str
    subject: str = ""
    name: str = ""
    expired_s: float = 0.0
    """How long ago the certificate ended; 0 while it is valid."""
    left_s: float = 0.0
    """How long the certificate is still valid."""
    certificate: bytes = b""
    """SHA-256 of the certificate shown, empty on the unix socket."""
    rights: str = ""
    """What an operator may do: viewer, editor or admin; empty for others."""
    issued: bool = False
    """The certificate is used for the first time."""


NOBODY: Final = Caller("nobody")

_NOUNS: Final = {"device": "device", "admin": "operator"}
_ISSUED: Final[dict[tuple[str, str], audit.Act]] = {
    ("device", "token"): "device.joined",
    ("device", "approved"): "device.approved",
    ("device", "renew"): "certificate.renewed",
    ("admin", "token"): "operator.logged-in",
    ("admin", "renew"): "certificate.renewed",
}
"""What it is called when a certificate is issued, by role and way."""
_JOURNAL: Final = Author("hengd", "journal of revocations", may_end_identities=False)


class Authority:
    """The two authorities' keys and the rules of identity; what the journal says is in force from the beginning."""

    def __init__(
        self,
        store: Store,
        server_ca: bytes,
        client_ca: pki.Authority,
        journal: Path,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._client_ca = client_ca
        self._journal = journal
        self._ends = read_ends(journal)
        """When identities were revoked last: the certificates that they had until then are worthless."""
        self._clock = clock
        self._monotonic = monotonic
        ends = float(pki.validity(client_ca.certificate_der)[1])
        self.timekeeper = Timekeeper(store, ends=ends, clock=clock, monotonic=monotonic)
        self.wanted: Callable[[Reader, bytes], str] = lambda tx, certificate_der: ""
        """Whether the holder of a certificate that is not listed may hand in what it runs: the epoch, else nothing."""
        self._cut: set[tuple[str, str]] = set()
        self._holders: dict[tuple[str, str], set[Callable[[], None]]] = {}
        self._renewals: dict[str, list[float]] = {}
        self._alarms = RateLimit(1 / ALARM_EVERY_S, ALARMS_AT_ONCE)
        self.server_ca = server_ca
        self._own_keys = {pki.spki_sha256(der).hex() for der in (server_ca, client_ca.certificate_der)}
        with store.read() as tx:
            self.fleet = read_meta(tx).fleet
        self.pin = pki.fingerprint(server_ca)
        self._apply_journal()

    # ---- who is it -----------------------------------------------------------------------------------

    def identify(self, certificate_der: bytes | None, address: str = "") -> Caller:
        """The caller behind a certificate that ``address`` shows; raises ``Denied`` with the reason."""
        if certificate_der is None:
            return NOBODY
        sha256 = pki.fingerprint(certificate_der)
        with self._store.read() as tx:
            record = find_certificate(tx, sha256)
            if record is None:
                wish = {"rescue": epoch} if (epoch := self.wanted(tx, certificate_der)) else {}
                if not wish:
                    self._tell_unlisted(sha256, address)
                cure, said = "hand in what you run, and wait" if wish else "join again", "is not on the daemon's list"
                raise Denied("unknown_certificate", f"this certificate {said}", cure=cure, extra=wish)
            self._refuse_state(record)
            name = self._name(tx, record)
            left_s = record.not_after - self.timekeeper.now(tx)
        return Caller(
            record.role, record.subject, name, max(0.0, -left_s), max(0.0, left_s), sha256,
            record.rights if record.role == "admin" else "", record.state == "issued",
        )  # fmt: skip

    def _tell_unlisted(self, sha256: bytes, address: str) -> None:
        """Only who has our authority's key makes one that was never on the list; a few lines say so."""
        try:
            self._alarms.take("", now=self._monotonic())
        except Limited:
            return
        log.warning(
            "a certificate that our client authority signed and that is not on the list was refused (%s)",
            pki.format_fingerprint(sha256), extra={"event": "unlisted_certificate", "remote": address},
        )  # fmt: skip

    async def used(self, caller: Caller) -> None:
        """Note the first use of a certificate: the ones before it are superseded. A full disk does not keep it out."""
        if caller.issued:
            try:
                await self._store.write(lambda tx: activate(tx, caller.certificate))
            except StorageFull:
                pass  # still issued, so noted at its next use

    def note_use(self, caller: Caller) -> None:
        """``used`` for those who cannot wait."""
        if caller.issued:
            self._store.submit(lambda tx: activate(tx, caller.certificate), lambda _, error: None)

    def is_cut(self, role: str, subject: str) -> bool:
        """Whether this identity was revoked, even if the commit is still on its way."""
        return (role, subject) in self._cut

    def hold(self, role: str, subject: str, close: Callable[[], None]) -> None:
        """Call ``close`` when this identity ends. Every live link of an identity holds it."""
        self._holders.setdefault((role, subject), set()).add(close)

    def release(self, role: str, subject: str, close: Callable[[], None]) -> None:
        """The link ended by itself."""
        holders = self._holders.get((role, subject))
        if holders is not None:
            holders.discard(close)
            if not holders:
                del self._holders[role, subject]

    # ---- issuing -------------------------------------------------------------------------------------

    def issue(
        self, tx: Transaction, *, role: str, subject: str, name: str, spki_der: bytes, via: str, by: str, board: bool,
        author: Author, rights: str = "admin",
    ) -> dict[str, Any]:  # fmt: skip
        """Put a new certificate on the list and return the identity that its owner stores (DER in base64)."""
        now = self._clock()
        self.timekeeper.check(tx)
        der = pki.issue_client(
            self._client_ca, spki_der, fleet_id=self.fleet, role="admin" if role == "admin" else "device",
            subject=subject, now=now, lifetime_s=_lifetime_s(role, board=board),
        )  # fmt: skip
        not_after = float(pki.validity(der)[1])
        spki = pki.spki_sha256(der).hex()
        if spki in self._own_keys:
            raise Conflict("key_in_use", "the public key is an authority's", cure="make a new key and ask again")
        record = CertificateRecord(
            role=role, subject=subject, spki=spki, not_after=not_after, state="issued", via=via, by=by,
            at=max(now, math.nextafter(self.ended(role, subject), math.inf)), rights=rights,
        )  # fmt: skip
        drop_spent(tx, role, subject, now=now)
        supersede_unused(tx, record)
        add_certificate(tx, pki.fingerprint(der), record)
        audit.note(tx, _ISSUED[role, via], f"{_NOUNS[role]}/{name}", author, now=now)
        return {
            "fleet": self.fleet,
            "device_id" if role == "device" else "admin": subject,
            "name": name,
            "certificate": base64.b64encode(der).decode(),
            "server_ca": [base64.b64encode(self.server_ca).decode()],
            "now": int(now),
            "renew_after": int(now + (not_after - now) * RENEW_AT),
        }

    async def renew(
        self, caller: Caller, shown_der: bytes, csr: bytes | None, *, board: bool, origin: str
    ) -> dict[str, Any]:
        """A new certificate for the same identity, with the key shown or the one in ``csr``; ``by`` the one shown.

        Expired certificates may ask up to 180 days after their end; ``Denied`` later, ``Limited`` too often.
        """
        if caller.expired_s > EXPIRED_OK_S:
            days, most = int(caller.expired_s / pki.DAY_S), EXPIRED_OK_S // pki.DAY_S
            ended = f"the certificate ended {days} days ago, more than {most}"
            raise Denied("approval_required", ended, cure="join again with a new token")
        self._count_renewal(caller)
        spki_der = read_csr(csr).spki_der if csr is not None else pki.spki_der(shown_der)

        def operation(tx: Transaction) -> dict[str, Any]:
            record = find_certificate(tx, caller.certificate)
            if record is None:
                raise Denied("unknown_certificate", "this certificate is not on the daemon's list", cure="join again")
            self._refuse_state(record)
            if record.state == "issued":
                activate(tx, caller.certificate)
            return self.issue(
                tx, role=caller.role, subject=caller.subject, name=caller.name, spki_der=spki_der, via="renew",
                by=caller.certificate.hex(), board=board, rights=record.rights,
                author=Author(caller.name, origin, may_end_identities=False),
            )  # fmt: skip

        return await self._store.write(operation)

    def renew_within_s(self, caller: Caller) -> int:
        """Within how many seconds this device should renew its identity, sooner than by itself; 0 = in its own time."""
        return 0

    def operators(self) -> list[Operator]:
        """Operators who can still use or renew a certificate, by name."""
        with self._store.read() as tx:
            return self.operators_in(tx)

    def operators_in(self, tx: Reader) -> list[Operator]:
        """``operators`` as a transaction sees them."""
        return live_operators(tx, ended_before=self._clock() - EXPIRED_OK_S)

    # ---- ending --------------------------------------------------------------------------------------

    async def revoke_device(self, name: str, by: Author) -> None:
        """End a device's identity at once: no byte of configuration reaches it from now on. Once ended it stays so."""
        with self._store.read() as tx:
            device = required_object(tx, "Device", name)
            identity = identity_state(tx, "device", device.id)
            if identity == "none":
                raise NotFound("not_joined", f"device/{name} has no identity to revoke", cure="it never joined")
        if identity != "revoked":
            await self.revoke("device", device.id, by)

    async def revoke_operator(self, name: str, by: Author) -> None:
        """End an operator's identity at once, with all its certificates."""
        if all(operator.name != name for operator in self.operators()):
            raise NotFound(
                "no_such_object", f"operator/{name} does not exist or was revoked", cure="see: hengectl get operators"
            )
        await self.revoke("admin", name, by)

    async def revoke(self, role: str, subject: str, by: Author) -> None:
        """Flag, close, commit with the journal; the commit's note closes again what was opened meanwhile.

        If the commit fails the identity stays cut in this process, and ends at the next start if the journal has it.
        """
        self._cut.add((role, subject))
        self.close_links(role, subject)
        now = self._clock()
        await self._store.write(lambda tx: self.end(tx, role, subject, by, now=now), essential=True)

    def end(self, tx: Transaction, role: str, subject: str, by: Author, *, now: float) -> None:
        """End an identity in a transaction that does more, as its last act; the commit's note closes its links."""
        ended = max(now, last_issued(tx, role, subject))
        revoke_all(tx, role, subject)
        audit.note(tx, "identity.revoked", _named(tx, role, subject), by, now=now)
        tx.note(Cut(role, subject))
        append_end(self._journal, ended, role, subject, durable=True)
        self._ends[role, subject] = ended
        self._cut.add((role, subject))

    def close_links(self, role: str, subject: str) -> None:
        """Close every live link of an identity that ends; one that was not revoked before was deleted."""
        if not self.is_cut(role, subject):
            self._note_deleted(role, subject)
        for close in list(self._holders.get((role, subject), ())):
            try:
                close()
            except Exception:  # task boundary: one link's fault must keep neither the others open nor the end from disk
                log.exception("closing a link failed", extra={"event": "link_close_failed"})

    def restored(self, role: str, subject: str) -> None:
        """A new certificate was given to an identity that had been cut."""
        self._cut.discard((role, subject))

    def _note_deleted(self, role: str, subject: str) -> None:
        """Cut what a change deleted. The store has the deletion already; the journal is for older copies of it."""
        self._cut.add((role, subject))
        with self._store.read() as tx:
            ended = self._ends[role, subject] = max(self._clock(), last_issued(tx, role, subject))
        try:
            append_end(self._journal, ended, role, subject, durable=False)
        except OSError as error:
            log.warning("the journal of revocations lacks a line: %s", error, extra={"event": "journal_failed"})

    def _apply_journal(self) -> None:
        """Revoke what the journal says and the store does not know, being a copy from before."""
        with self._store.read() as tx:
            forgotten = [
                (role, subject, ended)
                for (role, subject), ended in self._ends.items()
                if any(is_ended(record, ended) for _, record in certificates_of(tx, role, subject))
            ]
        if not forgotten:
            return

        def operation(tx: Transaction) -> None:
            for role, subject, ended in forgotten:
                revoke_all(tx, role, subject, until=ended)
                audit.note(tx, "identity.revoked", _named(tx, role, subject), _JOURNAL, now=self._clock())

        message = "%d identities are revoked by the journal; the store did not know"
        log.warning(message, len(forgotten), extra={"event": "journal_applied"})
        self._store.submit(operation, lambda _, error: None, essential=True)

    def ended(self, role: str, subject: str) -> float:
        """When an identity ended last, as the journal says: what it got until then is worthless."""
        return self._ends.get((role, subject), -math.inf)

    def _refuse_state(self, record: CertificateRecord) -> None:
        ended = self.ended(record.role, record.subject)
        if record.state == "revoked" or is_ended(record, ended) or self.is_cut(record.role, record.subject):
            raise Denied("certificate_revoked", "this identity was revoked", cure=_way_back(record))
        if record.state == "superseded":
            raise Denied("certificate_superseded", "a newer certificate of this identity is in use")

    def _name(self, tx: Reader, record: CertificateRecord) -> str:
        if record.role == "admin":
            return record.subject
        device = device_by_id(tx, record.subject)
        if device is None:
            raise Denied("unknown_certificate", "the device of this certificate was deleted", cure="join again")
        return device.name

    def _count_renewal(self, caller: Caller) -> None:
        now = self._monotonic()
        recent = [at for at in self._renewals.get(caller.subject, ()) if now - at < 3600]
        if len(recent) >= MAX_RENEWALS_PER_HOUR:
            raise Limited(
                "rate_limited",
                f"{MAX_RENEWALS_PER_HOUR} renewals an hour are enough",
                extra={"retry_after_s": int(3600 - (now - recent[0])) + 1},
            )
        self._renewals[caller.subject] = [*recent, now]


def _lifetime_s(role: str, *, board: bool) -> float:
    if role == "admin":
        return ADMIN_LIFETIME_S
    return BOARD_LIFETIME_S if board else DEVICE_LIFETIME_S


def _way_back(record: CertificateRecord) -> str:
    if record.role == "device":
        return "join again with a new token"
    made = f"hengectl token create --role {record.rights} --name {record.subject}"
    return f"an admin lets you in again: {made}; then log in: hengectl login URL"


def _named(tx: Reader, role: str, subject: str) -> str:
    """An identity as people know it: a device by the name it has now, one that is gone by its id."""
    device = device_by_id(tx, subject) if role == "device" else None
    return f"{_NOUNS[role]}/{device.name if device else subject}"
