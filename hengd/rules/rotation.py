"""The care of the authorities, step by step: who may not be left behind, what is written down, who is told.

Each step is one act on the files (``hengd.authorities``) between two records: before it, how soon devices should renew;
after it, the step in the audit. What a cut keeps from the audit is made up for at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from hengd.authorities import Authorities, Which, short
from hengd.leaf import OFFLINE_LIFETIME_S, Leaf, make_leaf, server_leaf
from hengd.records import ROTATION_KEY, RotationRecord, TokenRecord, pack, unpack
from hengd.rules import audit
from hengd.rules.anchors import SHOWN, Owner, keep_account, owners, rotation_in, step_between, told_by
from hengd.rules.authority import EXPIRED_OK_S, Authority
from hengd.rules.outcome import Author
from hengd.store import Reader, Store, Transaction
from henge_protocol import pki
from henge_protocol.errors import Conflict, Problem, StorageFull, Unavailable

log = logging.getLogger("hengd.rotation")

MAX_WITHIN_S: Final = 7 * 86_400
CA_DUE_S: Final = 400 * pki.DAY_S
"""So long before an authority ends it is to be replaced: longer than any certificate that it signs lives."""
_ITSELF: Final = Author("hengd", "start", may_end_identities=False)


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a step: ``changed`` is false when it had been done before."""

    changed: bool
    tokens: int = 0
    """Join tokens that name an authority which signs no more: whoever has one cannot join with it."""


class Rotation:
    """Steps of one daemon, one after the other."""

    def __init__(
        self,
        store: Store,
        authorities: Authorities,
        authority: Authority,
        *,
        names: Callable[[], Sequence[str]],
        put_in_force: Callable[[], Awaitable[None]],
        recall: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """``put_in_force`` makes listeners and announcements follow the files; ``recall`` makes devices come anew."""
        self._store = store
        self._authorities = authorities
        self._authority = authority
        self._names = names
        self._put_in_force = put_in_force
        self._recall = recall
        self._clock = clock
        self._turn = asyncio.Lock()
        self._leaf: Leaf | None = None

    # ---- what is so ----------------------------------------------------------------------------------

    def now(self) -> float:
        """The daemon's clock."""
        return self._clock()

    def leaf(self) -> Leaf:
        """The server's certificate as it is served."""
        return self._leaf or self.renewed_leaf()

    def renewed_leaf(self) -> Leaf:
        """The server's certificate as it should be served from now on; raises as ``server_leaf``."""
        with self._store.read() as tx:
            now = self._authority.timekeeper.now(tx)
        self._leaf = server_leaf(self._authorities, names=self._names(), now=now)
        return self._leaf

    def record(self) -> RotationRecord:
        """What is remembered of the rotation."""
        with self._store.read() as tx:
            return rotation_in(tx)

    async def owners(self) -> list[Owner]:
        """Everybody with a certificate that can still be used or renewed, also if the clock is ahead by years."""
        passed = self._authority.timekeeper.passed
        return await self._store.examine(lambda tx: owners(tx, ended_before=passed(tx) - EXPIRED_OK_S))

    def behind(self, everybody: Sequence[Owner]) -> list[Owner]:
        """Who does not know the server authority that is to sign, or that signs."""
        coming = self._authorities.next_server or self._authorities.server
        name, moving = short(coming.certificate_der), len(self._authorities.server_ders) > 1
        return [
            one for one in everybody
            if not one.knows(name) and (moving or any(record.told for record in one.records))
        ]  # fmt: skip

    def unmoved(self, everybody: Sequence[Owner]) -> list[Owner]:
        """Whose certificates are not all signed by the client authority in force."""
        client = self._authorities.in_force.client
        moving = self._authorities.old_client is not None
        return [
            one for one in everybody
            if not one.is_signed_by(client) and (moving or any(record.signed_by for record in one.records))
        ]  # fmt: skip

    def troubles(self) -> list[Unavailable]:
        """What a person should know of: a certificate that is due, an authority that ends."""
        due = self._leaf.trouble if self._leaf is not None else None
        found = due, self._ending("server"), self._ending("client")
        return [trouble for trouble in found if trouble is not None]

    def _ending(self, which: Which) -> Unavailable | None:
        signing = self._authorities.server if which == "server" else self._authorities.client
        left_s = pki.validity(signing.certificate_der)[1] - self._clock()
        if left_s > CA_DUE_S:
            return None
        flag, days = "" if which == "server" else " --client", max(0.0, left_s) / pki.DAY_S
        return Unavailable(
            "authority_ends",
            f"the {which} authority ends in {days:.0f} days",
            cure=f"replace it while devices can follow: hengd ca rotate begin{flag}",
        )

    # ---- the server authority ------------------------------------------------------------------------

    async def introduce(self, within_s: int | None, by: Author) -> Step:
        """Step 1: make the next server authority and tell everybody of it who renews, within a time.

        Asked again it makes none, and may change the time.

        Raises ``Conflict rotation_step``, ``Unavailable clock_suspect``, ``StorageFull``.
        """
        async with self._turn:
            if self._authorities.old_server is not None:
                raise _out_of_step(
                    "the server authority that signed before is still told to devices",
                    "finish that rotation first: hengd ca rotate finish",
                )
            is_new = self._authorities.next_server is None
            is_other_time = await self._prepare(within_s, anew=is_new)
            if is_new:
                self._authorities.introduce(now=self._clock())
                await self._done("authority.introduced", "server", by)
            if is_new or is_other_time:
                self._recall()
            return Step(is_new)

    async def switch(self, by: Author, *, leave_behind: bool) -> Step:
        """Step 3: let the next server authority sign. Raises ``Conflict`` ``rotation_step`` or ``left_behind``."""
        async with self._turn:
            coming = self._authorities.next_server
            if coming is None and self._authorities.old_server is not None:
                return Step(changed=False)
            if coming is None:
                raise _out_of_step("no next server authority was made", "make it first: hengd ca rotate begin")
            if not leave_behind:
                self._refuse_behind(await self.owners())
            with self._store.read() as tx:
                self._authority.timekeeper.check(tx)
            pem = make_leaf(coming, self._authorities.fleet, names=self._names(), now=self._clock())
            self._authorities.switch(pem)
            await self._done("authority.switched", "server", by)
            with self._store.read() as tx:
                return Step(changed=True, tokens=_open_tokens(tx, self._clock()))

    async def finish(self, by: Author) -> Step:
        """Step 4: tell nobody any more of the one that signed before; devices forget it when they renew."""
        async with self._turn:
            if self._authorities.next_server is not None:
                raise _out_of_step(
                    "the next server authority does not sign yet",
                    "switch to it first: hengd ca rotate switch; or give it up: hengd ca rotate cancel",
                )
            return await self._drop("server", by)

    async def cancel(self, by: Author) -> Step:
        """Take step 1 back; after the switch there is no way back, because the old key is gone."""
        async with self._turn:
            if self._authorities.old_server is not None:
                raise _out_of_step(
                    "the next server authority signs already, and the key of the one before is gone",
                    "finish: hengd ca rotate finish; then begin anew if you want another one",
                )
            if self._authorities.next_server is None:
                return Step(changed=False)
            self._authorities.withdraw()
            await self._done("authority.withdrawn", "server", by)
            self._recall()
            return Step(changed=True)

    # ---- the client authority ------------------------------------------------------------------------

    async def replace_client(self, within_s: int | None, by: Author) -> Step:
        """Let a new client authority sign; what the old one signed is let in until ``finish_client``.

        Asked again it makes none, and may change the time within which devices renew.
        """
        async with self._turn:
            is_new = self._authorities.old_client is None
            is_other_time = await self._prepare(within_s, anew=is_new)
            if is_new:
                self._authorities.replace_client(now=self._clock())
                await self._done("authority.introduced", "client", by)
            if is_new or is_other_time:
                self._recall()
            return Step(is_new)

    async def finish_client(self, by: Author, *, leave_behind: bool) -> Step:
        """Let in no more what the old client authority signed; ``Conflict left_behind`` names who would be out."""
        async with self._turn:
            if self._authorities.old_client is not None and not leave_behind:
                lagging = self.unmoved(await self.owners())
                if lagging:
                    raise _left_behind(lagging, "have no certificate of the new client authority")
            return await self._drop("client", by)

    # ---- the server authority's key ------------------------------------------------------------------

    async def remove_key(self, fingerprint: str, by: Author) -> Step:
        """Forget the server authority's key, which the caller has read back from where it is kept from now on.

        The server's certificate is made anew first, for five years. ``fingerprint`` (hex) is of the authority whose
        key the caller has. Raises ``Conflict`` ``wrong_authority`` or ``rotation_step``.
        """
        async with self._turn:
            server = self._authorities.server
            if fingerprint != pki.fingerprint(server.certificate_der).hex():
                raise Conflict(
                    "wrong_authority",
                    f"the file holds the key of {fingerprint[:16]}, and {short(server.certificate_der)} signs now",
                    cure="export it again: hengd ca export -o FILE --remove-key",
                )
            if self._authorities.next_server is not None:
                raise _out_of_step(
                    "a rotation is under way, and its switch needs keys here",
                    "first: hengd ca rotate switch, or hengd ca rotate cancel",
                )
            if not server.key_pem:
                return Step(changed=False)
            self._authorities.keep_leaf(self._made(server, OFFLINE_LIFETIME_S))
            self._authorities.remove_server_key()
            await self._done("authority.key-removed", "server", by)
            return Step(changed=True)

    async def import_key(self, key_pem: bytes, by: Author) -> Step:
        """Take the server authority's key back. Raises ``Conflict wrong_authority``."""
        async with self._turn:
            self._authorities.check_server_key(key_pem)
            if self._authorities.server.key_pem:
                return Step(changed=False)
            self._authorities.put_server_key(key_pem)
            await self._done("authority.key-imported", "server", by)
            return Step(changed=True)

    async def reissue(self, key_pem: bytes, by: Author) -> Step:
        """Make the server's certificate anew, with the key that is here or the one that is brought and not kept.

        Raises ``Conflict`` ``wrong_authority`` or ``key_elsewhere``.
        """
        async with self._turn:
            server = self._authorities.server
            signing = self._authorities.check_server_key(key_pem) if key_pem else server
            if not signing.key_pem:
                raise Conflict(
                    "key_elsewhere",
                    "the server authority's key is kept elsewhere",
                    cure="name the file that holds it: hengd ca reissue --from FILE",
                )
            lifetime_s = pki.SERVER_LIFETIME_S if server.key_pem else OFFLINE_LIFETIME_S
            self._authorities.keep_leaf(self._made(signing, lifetime_s))
            await self._done("server-certificate.made", "server", by)
            return Step(changed=True)

    async def make_up(self) -> None:
        """At the start: write into the audit the step that a cut kept out of it; on a full disk at a later one."""
        record, now = self.record(), told_by(self._authorities)
        if record.in_force and record.in_force != now:
            act, which = step_between(record.in_force, now, is_switched=record.switched > 0)
            try:
                await self._note(act, which, _ITSELF)
            except StorageFull as error:
                log.warning("%s is not in the audit yet: %s", act, error, extra={"event": "upkeep_waits"})

    # ---- parts of steps ------------------------------------------------------------------------------

    def _made(self, signing: pki.Authority, lifetime_s: float) -> bytes:
        with self._store.read() as tx:
            self._authority.timekeeper.check(tx)
        fleet, names = self._authorities.fleet, self._names()
        return make_leaf(signing, fleet, names=names, now=self._clock(), lifetime_s=lifetime_s)

    def _refuse_behind(self, everybody: Sequence[Owner]) -> None:
        lagging = self.behind(everybody)
        if lagging:
            raise _left_behind(lagging, "did not hear of the next server authority")

    async def _drop(self, which: Which, by: Author) -> Step:
        old = self._authorities.old_server if which == "server" else self._authorities.old_client
        if old is None:
            return Step(changed=False)
        self._authorities.drop_old(which)
        await self._done("authority.dropped", which, by)
        self._recall()
        return Step(changed=True)

    async def _prepare(self, within_s: int | None, *, anew: bool) -> bool:
        """Write down how soon devices should renew, and what the certificates from before were told.

        Returns whether the time is another than before.
        """
        before = self.record().within_s
        wanted = within_s or (RotationRecord().within_s if anew else before)

        def operation(tx: Transaction) -> None:
            self._authority.timekeeper.check(tx)
            keep_account(tx, self._authorities.in_force)
            record = msgspec.structs.replace(rotation_in(tx), within_s=wanted, in_force=told_by(self._authorities))
            tx.put("meta", ROTATION_KEY, pack(record))

        await self._store.write(operation)
        return wanted != before

    async def _done(self, act: audit.Act, which: Which, by: Author) -> None:
        """What follows a step on the files; whatever of it fails, the step stands."""
        await self._put_in_force()
        await self._note(act, which, by)

    async def _note(self, act: audit.Act, which: Which, by: Author) -> None:
        def operation(tx: Transaction) -> None:
            now, record = self._clock(), rotation_in(tx)
            switched = record.switched if self._authorities.old_server is not None else 0.0
            if act == "authority.switched":
                switched = now
            record = msgspec.structs.replace(record, in_force=told_by(self._authorities), switched=switched)
            tx.put("meta", ROTATION_KEY, pack(record))
            audit.note(tx, act, f"authority/{which}", by, now=now)

        await self._store.write(operation, essential=True)


def _open_tokens(tx: Reader, now: float) -> int:
    """Tokens that could still be used, all made before now."""
    tokens = [unpack(TokenRecord, payload) for _, payload in tx.scan("tokens")]
    return sum(token.expires > now and token.used < token.uses for token in tokens)


def _out_of_step(message: str, cure: str) -> Conflict:
    return Conflict("rotation_step", f"{message}; nothing was changed", cure=cure)


def _left_behind(lagging: Sequence[Owner], what: str) -> Conflict:
    counts = [(kind, sum(one.kind == kind for one in lagging)) for kind in ("device", "operator")]
    who = " and ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts if count)
    return Conflict(
        "left_behind",
        f"left behind would be {who} that {what}; nothing was changed",
        cure="wait until they have renewed, see: hengd ca status; or leave them behind: --leave-behind",
        problems=[Problem("", what, f"{one.kind}/{one.name}") for one in lagging[:SHOWN]],
    )
