"""Who may speak: the allow-list, and what a certificate that is shown is good for.

A certificate is a key to look up, never a grant: one that chains to our client authority and is not on the
list is refused. How identities end is in ``ends``, how certificates are made in ``issuing``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hengd.authorities import Authorities, short
from hengd.records import CertificateRecord
from hengd.rules.anchors import is_outdated, rotation_in
from hengd.rules.certificates import Operator, activate, find_certificate, live_operators
from hengd.rules.ends import Ends
from hengd.rules.fleet import device_by_id, read_meta
from hengd.rules.issuing import Issuer
from hengd.rules.limits import RateLimit
from hengd.rules.outcome import Author
from hengd.rules.timekeeping import Timekeeper
from hengd.store import Reader, Store, Transaction
from henge_protocol import pki
from henge_protocol.csr import read_csr
from henge_protocol.errors import Denied, HengeError, Limited, NotFound, StorageFull

log = logging.getLogger("hengd.authority")

EXPIRED_OK_S: Final = 180 * pki.DAY_S
"""How long after its end a certificate may still renew itself; a drawer is not an attack."""
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
    is_outdated: bool = False
    """It was issued under authorities that are not those in force; see ``anchors``."""


NOBODY: Final = Caller("nobody")


class Authority:
    """Tells who is behind a certificate and renews it; ``ends`` and ``issuer`` are the rest of an identity's life."""

    def __init__(
        self,
        store: Store,
        authorities: Authorities,
        journal: Path,
        *,
        is_rescue: Callable[[], bool],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """``is_rescue`` says whether devices that are not listed may hand in what they run."""
        self._store = store
        self._is_rescue = is_rescue
        self._clock = clock
        self._monotonic = monotonic
        self._authorities = authorities
        self.timekeeper = Timekeeper(store, ends=self._client_ca_ends, clock=clock, monotonic=monotonic)
        self._renewals: dict[str, list[float]] = {}
        self._alarms = RateLimit(1 / ALARM_EVERY_S, ALARMS_AT_ONCE)
        with store.read() as tx:
            self.fleet = read_meta(tx).fleet
        self.ends = Ends(store, journal, clock=clock)
        self.issuer = Issuer(authorities, self.ends, self.timekeeper, clock=clock)

    @property
    def server_cas(self) -> tuple[bytes, ...]:
        """The server authorities in force (DER), the one that signs first; two during a rotation."""
        return self._authorities.server_ders

    @property
    def pin(self) -> bytes:
        """SHA-256 of the server authority that signs: what tokens and announcements name."""
        return pki.fingerprint(self._authorities.server.certificate_der)

    def identify(self, certificate_der: bytes | None, address: str = "") -> Caller:
        """The caller behind a certificate that ``address`` shows; raises ``Denied`` with the reason."""
        if certificate_der is None:
            return NOBODY
        sha256 = pki.fingerprint(certificate_der)
        with self._store.read() as tx:
            record = find_certificate(tx, sha256)
            if record is None:
                epoch = self._wanted(tx, certificate_der)
                if not epoch:
                    self._tell_unlisted(sha256, address)
                raise _unlisted(epoch)
            self.ends.refuse(record)
            name = _name(tx, record)
            left_s = record.not_after - self.timekeeper.now(tx)
        return Caller(
            record.role, record.subject, name, max(0.0, -left_s), max(0.0, left_s), sha256,
            record.rights if record.role == "admin" else "", record.state == "issued",
            is_outdated(record, self._authorities.in_force),
        )  # fmt: skip

    def _wanted(self, tx: Reader, certificate: bytes) -> str:
        """The epoch, if the holder of a certificate that is not listed may hand in what it runs; else nothing."""
        if not self._is_rescue():
            return ""
        try:
            identity, (begins, ends) = pki.identity_of(certificate), pki.validity(certificate)
        except HengeError:
            return ""
        issued = begins + pki.CLIENT_BACKDATED_S
        is_ours = identity.role == "device" and identity.fleet_id == self.fleet
        if not is_ours or issued <= self.ends.last("device", identity.subject):
            return ""
        if self._clock() - ends > EXPIRED_OK_S or tx.get("ids", identity.subject.encode()) is not None:
            return ""
        return read_meta(tx).epoch

    def account_of(self, certificate: bytes) -> tuple[str, str]:
        """Of a certificate that was shown: the server authority that its holder knows for certain, having verified us,
        and the client authority that signed it."""
        signed_by = next((der for der in self._authorities.client_ders if pki.is_signed_by(certificate, der)), None)
        return self._authorities.in_force.servers[0], short(signed_by) if signed_by is not None else ""

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
                raise _unlisted()
            self.ends.refuse(record)
            if record.state == "issued":
                activate(tx, caller.certificate)
            return self.issuer.issue(
                tx, role=caller.role, subject=caller.subject, name=caller.name, spki_der=spki_der, via="renew",
                by=caller.certificate.hex(), board=board, rights=record.rights,
                author=Author(caller.name, origin, may_end_identities=False),
            )  # fmt: skip

        return await self._store.write(operation)

    def renew_within_s(self, caller: Caller) -> int:
        """Within how many seconds this caller should renew its identity, sooner than by itself; 0 = in its own time."""
        if not caller.is_outdated:
            return 0
        with self._store.read() as tx:
            return rotation_in(tx).within_s

    def operators(self) -> list[Operator]:
        """Operators who can still use or renew a certificate, by name, also if the clock is ahead by years."""
        with self._store.read() as tx:
            return self.operators_in(tx)

    def operators_in(self, tx: Reader) -> list[Operator]:
        """``operators`` as a transaction sees them."""
        return live_operators(tx, ended_before=self.timekeeper.passed(tx) - EXPIRED_OK_S)

    async def revoke_operator(self, name: str, by: Author) -> None:
        """End an operator's identity at once, with all its certificates."""
        if all(operator.name != name for operator in self.operators()):
            raise NotFound(
                "no_such_object", f"operator/{name} does not exist or was revoked", cure="see: hengectl get operators"
            )
        await self.ends.revoke("admin", name, by)

    def _client_ca_ends(self) -> float:
        return float(pki.validity(self._authorities.client.certificate_der)[1])

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


def _unlisted(wanted_by: str = "") -> Denied:
    message, extra = "this certificate is not on the daemon's list", {"rescue": wanted_by} if wanted_by else {}
    cure = "hand in what you run, and wait" if wanted_by else "join again"
    return Denied("unknown_certificate", message, cure=cure, extra=extra)


def _name(tx: Reader, record: CertificateRecord) -> str:
    if record.role == "admin":
        return record.subject
    device = device_by_id(tx, record.subject)
    if device is None:
        raise Denied("unknown_certificate", "the device of this certificate was deleted", cure="join again")
    return device.name
