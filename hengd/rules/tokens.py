"""Join and admin tokens: made once, shown once, kept as a hash, used up."""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from hengd.records import TokenRecord, pack, unpack
from hengd.rules import audit
from hengd.rules.authority import Authority
from hengd.rules.certificates import LIVE, certificates_of, identity_state, owner_of_key
from hengd.rules.enrolment import Enrolment, known_schema
from hengd.rules.fleet import find_object, required_object
from hengd.rules.limits import FailureLimit
from hengd.rules.outcome import Author
from hengd.store import Reader, Store, Transaction
from henge_protocol.csr import Csr, read_csr
from henge_protocol.errors import (
    Conflict,
    Invalid,
    Malformed,
    NotFound,
    Unauthenticated,
)  # fmt: skip
from henge_protocol.joining import JoinToken, format_token, new_token, secret_hash
from henge_protocol.model import ROLES, check_name
from henge_protocol.pki import DAY_S
from henge_protocol.selector import check_labels

MAX_TTL_S: Final = 30 * DAY_S
MAX_USES: Final = 1000
RETRY_WINDOW_S: Final = 600.0
"""How long the same token with the same key may ask again: its answer may have been lost."""
MAX_TOKENS: Final = 1000

_REFUSED: Final = ("token_invalid", "token_expired", "token_used")
"""Refusals that leave a record: whoever gets them has no right token."""
_PATTERN_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-*?")

_Purchase = Callable[[Transaction, TokenRecord, Csr], dict[str, Any]]
"""What a token buys, inside a transaction."""


class Tokens:
    """Tokens and what they buy."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        enrolment: Enrolment,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._authority = authority
        self._enrolment = enrolment
        self._clock = clock
        self._monotonic = monotonic
        self._limit = FailureLimit()
        self._ends: dict[str, float] = {}
        """When tokens of this run end, monotonic seconds: setting the clock back revives none."""
        self._refusals = audit.Refusals(store, clock=clock, monotonic=monotonic)

    async def create(self, wanted: dict[str, Any], by: Author) -> tuple[str, TokenRecord]:
        """A new token as text (shown this once) and its record."""
        token = new_token(wanted.get("kind", "join"), self._authority.pin, random=secrets.token_bytes)
        record = self._record(token, wanted, by.name)
        await self._store.write(lambda tx: self._put(tx, record, by))
        self._note_end(record)
        return format_token(token), record

    async def replace(self, name: str, wanted: dict[str, Any], by: Author) -> tuple[str, TokenRecord]:
        """A token with which other hardware becomes this device, and the end of its identity: both or neither."""
        token = new_token("join", self._authority.pin, random=secrets.token_bytes)
        record = self._record(token, {**wanted, "name": name}, by.name)

        def operation(tx: Transaction) -> None:
            device = required_object(tx, "Device", name)
            self._put(tx, record, by)
            if identity_state(tx, "device", device.id) == "active":
                self._authority.ends.end(tx, "device", device.id, by, now=record.created)

        await self._store.write(operation, essential=True)
        self._note_end(record)
        return format_token(token), record

    def list(self) -> list[TokenRecord]:
        """All tokens that can still be used, or could lately; ``prune`` drops the others."""
        with self._store.read() as tx:
            return [unpack(TokenRecord, payload) for _, payload in tx.scan("tokens")]

    async def prune(self) -> None:
        """Drop tokens that ended more than a day ago; a clock that leaps ahead throws none away."""
        with self._store.read() as tx:
            has_ended = any(self._ended(tx))
        if has_ended:
            await self._store.write(self._drop_ended)

    async def revoke(self, token_id: str, by: Author) -> None:
        """Make a token worthless."""

        def operation(tx: Transaction) -> None:
            if not token_id or not tx.delete("tokens", token_id.encode()[:64]):
                message = f"there is no token {ascii(token_id)[:40]}"
                raise NotFound("token_invalid", message, cure="see: hengectl token list")
            audit.note(tx, "token.revoked", f"token/{token_id}", by, now=self._clock())

        await self._store.write(operation, essential=True)

    async def enrol(
        self, token_id: str, secret: str, csr: bytes, name: str, *, address: str, board: bool, wish: object = None
    ) -> dict[str, Any]:
        """Trade a join token for a device's identity; one transaction, nothing stored on refusal.

        ``wish`` is the schema that the device asks for, used if neither the token nor the object says one.
        """
        return await self._spend(
            "join",
            token_id,
            secret,
            csr,
            address,
            lambda tx, token, key: self._enrol(tx, token, key, name, wish, board=board, address=address),
        )

    async def log_in(self, token_id: str, secret: str, csr: bytes, name: str, *, address: str) -> dict[str, Any]:
        """Trade an admin token for an operator's identity."""
        check_name(name, "operator name")
        return await self._spend(
            "admin", token_id, secret, csr, address, lambda tx, token, key: self._log_in(tx, token, key, name, address)
        )

    async def _spend(
        self,
        kind: str,
        token_id: str,
        secret: str,
        csr: bytes,
        address: str,
        buy: _Purchase,
    ) -> dict[str, Any]:
        try:
            self._refuse_guess(kind, token_id, secret, address)
            key = read_csr(csr)
            bought = await self._store.write(self._purchase(kind, token_id, secret, key, buy))
        except (Unauthenticated, Conflict) as error:
            if error.code in _REFUSED:
                way = "enrol" if kind == "join" else "login"
                stranger = Author("nobody", f"{way} {address}", may_end_identities=False)
                await self._refusals.note("token.refused", self._object_of(token_id), stranger)
            raise
        role = "device" if kind == "join" else "admin"
        self._authority.ends.restored(role, bought.get("device_id") or bought["admin"])
        return bought

    def _purchase(
        self,
        kind: str,
        token_id: str,
        secret: str,
        key: Csr,
        buy: Callable[[Transaction, TokenRecord, Csr], dict[str, Any]],
    ) -> Callable[[Transaction], dict[str, Any]]:
        now, has_ended = self._clock(), self._monotonic() >= self._ends.get(token_id, math.inf)

        def operation(tx: Transaction) -> dict[str, Any]:
            token = self._known(tx, kind, token_id, secret)
            repeated = _is_repeated(tx, token, key, now)
            if not repeated:
                _check_left(token, has_ended=has_ended or now >= token.expires)
            bought = buy(tx, token, key)
            tx.put("tokens", token.id.encode(), pack(msgspec.structs.replace(token, used=token.used + (not repeated))))
            return bought

        return operation

    def _object_of(self, token_id: str) -> str:
        """What a record calls the token: by its id if there is one; what a stranger made up is not repeated."""
        with self._store.read() as tx:
            known = token_id and tx.get("tokens", token_id.encode()[:64]) is not None
        return f"token/{token_id}" if known else "token"

    def _refuse_guess(self, kind: str, token_id: str, secret: str, address: str) -> None:
        """Turn a wrong secret away before its request is read or anything written, in one go with its count.

        A right one is not asked how often others failed, not even those of its own address.
        """
        try:
            with self._store.read() as tx:
                self._known(tx, kind, token_id, secret)
        except Unauthenticated:
            now = self._monotonic()
            self._limit.check(address, now=now)
            self._limit.failed(address, now=now)
            raise

    def _known(self, tx: Reader, kind: str, token_id: str, secret: str) -> TokenRecord:
        payload = tx.get("tokens", token_id.encode()[:64]) if token_id else None
        token = unpack(TokenRecord, payload) if payload else None
        wanted = token.secret_sha256 if token else "0" * 64
        if not hmac.compare_digest(_hash(secret), wanted) or token is None or token.kind != kind:
            raise Unauthenticated(
                "token_invalid", "no such token, or its secret does not match", cure=_another(kind, "admin")
            )
        return token

    def _enrol(
        self,
        tx: Transaction,
        token: TokenRecord,
        key: Csr,
        name: str,
        wish: object,
        *,
        board: bool,
        address: str,
    ) -> dict[str, Any]:
        _check_pattern(token, check_name(name, "device name"))
        author = Author(f"token:{token.id}", f"enrol {address}", may_end_identities=False)
        schema = token.schema or known_schema(tx, wish)
        return self._enrolment.admit(
            tx, name, key, author, schema=schema, labels=token.labels, via="token", by=token.id, board=board
        )

    def _log_in(self, tx: Transaction, token: TokenRecord, key: Csr, name: str, address: str) -> dict[str, Any]:
        _check_pattern(token, name)
        self._check_operator(tx, token, key, name)
        return self._authority.issuer.issue(
            tx, role="admin", subject=name, name=name, spki_der=key.spki_der, via="token", by=token.id, board=False,
            rights=token.rights, author=Author(f"token:{token.id}", f"login {address}", may_end_identities=False),
        )  # fmt: skip

    def _check_operator(self, tx: Transaction, token: TokenRecord, key: Csr, name: str) -> None:
        """A name in use is for those who have its key already, or a token made for this very name."""
        ours = owner_of_key(tx, key.spki_sha256) == ("admin", name)
        taken = any(operator.name == name for operator in self._authority.operators_in(tx))
        if taken and not ours and token.pattern != name:
            raise Conflict(
                "name_taken",
                f"the operator {name} is logged in elsewhere, and the token is not bound to that name",
                cure=f"choose another name with --name; if it is you: hengectl token create --admin --name {name}",
            )

    def _record(self, token: JoinToken, wanted: dict[str, Any], by: str) -> TokenRecord:
        ttl_s, uses = wanted.get("ttl_s", 3600), wanted.get("uses", 1)
        if type(ttl_s) is not int or not 1 <= ttl_s <= MAX_TTL_S:
            raise Invalid("bad_parameter", f"ttl_s is {ascii(ttl_s)[:40]}, 1 to {MAX_TTL_S} seconds are allowed")
        if type(uses) is not int or not 1 <= uses <= MAX_USES:
            raise Invalid("bad_parameter", f"uses is {ascii(uses)[:40]}, 1 to {MAX_USES} are allowed")
        pattern, labels, schema = wanted.get("name", "*"), wanted.get("labels", {}), wanted.get("schema", "")
        if not isinstance(pattern, str) or not 1 <= len(pattern) <= 63 or not set(pattern) <= _PATTERN_CHARS:
            raise Invalid("bad_parameter", f"name {ascii(pattern)[:80]} is not a pattern such as pico-* or lamp-1")
        if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
            raise Invalid("bad_parameter", "labels is an object of texts")
        check_labels(labels)
        now = self._clock()
        return TokenRecord(
            id=token.id,
            kind=token.kind,
            secret_sha256=secret_hash(token.secret).hex(),
            expires=now + ttl_s,
            created=now,
            by=by,
            pattern=pattern,
            schema=check_name(schema, "schema") if schema != "" else "",
            labels=labels,
            uses=uses,
            rights=_rights(token.kind, wanted),
        )

    def _note_end(self, record: TokenRecord) -> None:
        now = self._monotonic()  # a clock set back by a day is in doubt, and then nothing is issued
        self._ends = {token_id: end for token_id, end in self._ends.items() if end > now - DAY_S}
        self._ends[record.id] = now + record.expires - record.created

    def _put(self, tx: Transaction, record: TokenRecord, by: Author) -> None:
        if tx.count("tokens") >= MAX_TOKENS:
            self._drop_ended(tx)
        if tx.count("tokens") >= MAX_TOKENS:
            raise Conflict("too_complex", f"{MAX_TOKENS} tokens are waiting to be used", cure="revoke some of them")
        if record.schema and find_object(tx, "Schema", record.schema) is None:
            raise Invalid("no_such_schema", f"schema {record.schema} does not exist", cure="hengectl get schemas")
        tx.put("tokens", record.id.encode(), pack(record))
        audit.note(tx, "token.created", f"token/{record.id}", by, now=record.created)

    def _drop_ended(self, tx: Transaction) -> None:
        for key in list(self._ended(tx)):
            tx.delete("tokens", key)

    def _ended(self, tx: Reader) -> Iterator[bytes]:
        horizon = self._authority.timekeeper.passed(tx) - DAY_S
        return (key for key, payload in tx.scan("tokens") if unpack(TokenRecord, payload).expires < horizon)


def _is_repeated(tx: Transaction, token: TokenRecord, key: Csr, now: float) -> bool:
    """Whether this key bought its identity with this token a moment ago, and that identity still stands."""
    owner = owner_of_key(tx, key.spki_sha256)
    return owner is not None and any(
        record.via == "token" and record.by == token.id and record.state in LIVE and now - record.at <= RETRY_WINDOW_S
        for _, record in certificates_of(tx, *owner)
        if record.spki == key.spki_sha256.hex()
    )


def _check_left(token: TokenRecord, *, has_ended: bool) -> None:
    if has_ended:
        raise Unauthenticated("token_expired", f"token {token.id} has expired", cure=_another(token.kind, token.rights))
    if token.used >= token.uses:
        raise Conflict("token_used", f"token {token.id} has been used", cure=_another(token.kind, token.rights))


def _another(kind: str, rights: str) -> str:
    """How a token of the same kind comes about; one for a person is made by an admin, elsewhere."""
    role = f" --role {rights}" if kind == "admin" else ""
    return f"an admin makes another: hengectl token create{role}"


def _check_pattern(token: TokenRecord, name: str) -> None:
    if not fnmatchcase(name, token.pattern):
        raise Invalid(
            "token_name",
            f"the token allows the name {token.pattern}, not {name}",
            cure="choose such a name with --name, or make another token",
        )


def _rights(kind: str, wanted: dict[str, Any]) -> str:
    rights = wanted.get("role", "admin")
    if rights not in ROLES or (kind != "admin" and "role" in wanted):
        raise Invalid(
            "bad_parameter", f"role {ascii(rights)[:40]}: a token for a person has {', '.join(ROLES)}, no other"
        )
    return str(rights)


def _hash(secret: str) -> str:
    try:
        return secret_hash(secret).hex()
    except Malformed:
        return "f" * 64
