"""How identities end, and that they stay ended: the journal, the flag in memory, the links that are closed.

Revoking flags the identity in memory, closes its links, commits together with a line of the journal, and closes what
was opened meanwhile; the flag keeps configuration from whatever is in between.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hengd.journal import append_end, read_ends
from hengd.records import CertificateRecord
from hengd.rules import audit
from hengd.rules.certificates import certificates_of, identity_state, is_ended, last_issued, revoke_all
from hengd.rules.fleet import device_by_id, required_object
from hengd.rules.notes import Cut
from hengd.rules.outcome import Author
from hengd.store import Reader, Store, Transaction
from henge_protocol.errors import Denied, NotFound

log = logging.getLogger("hengd.authority")

NOUNS: Final = {"device": "device", "admin": "operator"}
"""What people call an identity, by its role."""
_JOURNAL: Final = Author("hengd", "journal of revocations", may_end_identities=False)


class Ends:
    """Who was revoked or deleted; what the journal says is in force from the beginning."""

    def __init__(self, store: Store, journal: Path, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._journal = journal
        self._ends = read_ends(journal)
        """When identities were revoked last: the certificates that they had until then are worthless."""
        self._clock = clock
        self._cut: set[tuple[str, str]] = set()
        self._holders: dict[tuple[str, str], set[Callable[[], None]]] = {}
        self._apply_journal()

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

    def last(self, role: str, subject: str) -> float:
        """When an identity ended last, before all time if it never did."""
        return self._ends.get((role, subject), -math.inf)

    def refuse(self, record: CertificateRecord) -> None:
        """Raise ``Denied`` for a certificate whose identity ended, or that another one has replaced."""
        ended = self.last(record.role, record.subject)
        if record.state == "revoked" or is_ended(record, ended) or self.is_cut(record.role, record.subject):
            raise Denied("certificate_revoked", "this identity was revoked", cure=_way_back(record))
        if record.state == "superseded":
            raise Denied("certificate_superseded", "a newer certificate of this identity is in use")

    async def revoke_device(self, name: str, by: Author) -> None:
        """End a device's identity at once: no byte of configuration reaches it from now on. Once ended it stays so."""
        with self._store.read() as tx:
            device = required_object(tx, "Device", name)
            identity = identity_state(tx, "device", device.id)
            if identity == "none":
                raise NotFound("not_joined", f"device/{name} has no identity to revoke", cure="it never joined")
        if identity != "revoked":
            await self.revoke("device", device.id, by)

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


def _way_back(record: CertificateRecord) -> str:
    if record.role == "device":
        return "join again with a new token"
    made = f"hengectl token create --role {record.rights} --name {record.subject}"
    return f"an admin lets you in again: {made}; then log in: hengectl login URL"


def _named(tx: Reader, role: str, subject: str) -> str:
    """An identity as people know it: a device by the name it has now, one that is gone by its id."""
    device = device_by_id(tx, subject) if role == "device" else None
    return f"{NOUNS[role]}/{device.name if device else subject}"
