"""Every way henge says no.

One family.  The *class* says which kind of trouble it is (callers decide by type, the HTTP edge looks
up a status by type, the command line an exit code), the *code* says which trouble exactly and never
changes once released, the *message* says it to a person, the *cure* says what that person can do.
Codes and their meaning stand in ``CODES``; ``docs/errors.md`` lists the same table and a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One spot in the input that is wrong: where (a JSON pointer), what, and about which object."""

    pointer: str
    message: str
    object: str = ""
    """``kind/name`` the problem belongs to, empty when the request is about one object only."""


class HengeError(Exception):
    """Raised when henge refuses; carries a stable code, a sentence, a cure and the spots at fault."""

    kind = "internal"

    def __init__(
        self,
        code: str,
        message: str,
        *,
        cure: str = "",
        problems: Sequence[Problem] = (),
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        if code not in CODES:
            raise LookupError(f"error code {code!r} is not in henge_protocol.errors.CODES")
        self.code = code
        self.message = message
        self.cure = cure
        self.problems = tuple(problems)
        self.extra: dict[str, object] = dict(extra or {})

    def __str__(self) -> str:
        return self.message


class Malformed(HengeError):
    """Raised when bytes are not what they claim to be (syntax, encoding, framing)."""

    kind = "malformed"


class Invalid(HengeError):
    """Raised when the input is well-formed and its content is not acceptable."""

    kind = "invalid"


class NotFound(HengeError):
    """Raised when the thing named does not exist (or the caller may not know that it does)."""

    kind = "not_found"


class Unauthenticated(HengeError):
    """Raised when the caller has not proved who it is."""

    kind = "unauthenticated"


class Denied(HengeError):
    """Raised when the caller is known and may not do this."""

    kind = "denied"


class Conflict(HengeError):
    """Raised when the request contradicts what is already there."""

    kind = "conflict"


class Stale(HengeError):
    """Raised when somebody else changed the object first (If-Match failed)."""

    kind = "stale"


class PreconditionRequired(HengeError):
    """Raised when replacing an object without saying which version is replaced."""

    kind = "precondition_required"


class Gone(HengeError):
    """Raised when the thing existed and has expired."""

    kind = "gone"


class TooLarge(HengeError):
    """Raised when the input exceeds a documented limit of size."""

    kind = "too_large"


class UnsupportedMedia(HengeError):
    """Raised when a body is not ``application/json`` in plain UTF-8."""

    kind = "unsupported_media"


class MethodNotAllowed(HengeError):
    """Raised when the path exists and the method does not."""

    kind = "method_not_allowed"


class UpgradeRequired(HengeError):
    """Raised when a WebSocket resource is asked for without a version 13 upgrade."""

    kind = "upgrade_required"


class Misdirected(HengeError):
    """Raised when a request names a host that this listener does not serve."""

    kind = "misdirected"


class Limited(HengeError):
    """Raised when the caller asks too often; ``extra["retry_after_s"]`` says when to come back."""

    kind = "limited"


class Unavailable(HengeError):
    """Raised when the daemon cannot do it now (stopping, clock in doubt) and can later."""

    kind = "unavailable"


class TimedOut(HengeError):
    """Raised when the peer did not finish in time."""

    kind = "timed_out"


class StorageFull(HengeError):
    """Raised when a write does not fit on the disk or into the map; nothing was changed."""

    kind = "storage_full"


class Unreachable(HengeError):
    """Raised by clients when no daemon answers."""

    kind = "unreachable"


class Untrusted(HengeError):
    """Raised by clients when the peer is not the daemon they were told to trust."""

    kind = "untrusted"


class Internal(HengeError):
    """Raised when henge itself is at fault; the daemon's log has the details."""

    kind = "internal"


CODES: dict[str, str] = {
    # bytes and bodies
    "bad_json": "The text is not JSON; the message names the offset.",
    "bad_encoding": "The bytes are not UTF-8 (or carry a byte order mark or a lone surrogate).",
    "duplicate_key": "An object has the same key twice.",
    "number_out_of_range": "A number is not finite or an integer lies beyond 2^53-1.",
    "too_deep": "The nesting is deeper than the limit.",
    "too_complex": "The value has more nodes, keys or references than the limit, or overrides end at too many moments.",
    "body_required": "The request needs a body and has none.",
    "body_refused": "This method takes no body.",
    "too_large": "The body, frame or field exceeds its limit.",
    "unsupported_media": "Bodies are application/json in UTF-8, without content encoding.",
    "bad_request": "The HTTP request is malformed.",
    "request_timeout": "The request did not arrive completely in time.",
    # requests
    "bad_name": "A name is not of the form [a-z0-9] with inner hyphens, at most 63 characters.",
    "unknown_parameter": "The query has a parameter that this route does not know, or one twice.",
    "bad_parameter": "A query parameter or header has a value of the wrong form.",
    "no_such_route": "There is nothing at this path.",
    "method_not_allowed": "The path exists, the method does not; Allow lists those that do.",
    "wrong_host": "The request names a host that this listener does not serve.",
    "foreign_origin": "The request comes from a web page of another origin.",
    "upgrade_required": "This resource is a WebSocket, version 13.",
    "rate_limited": "Too many requests; Retry-After says when to come back.",
    "stopping": "The daemon is shutting down; come back after Retry-After.",
    "internal": "The daemon failed; its log has the details under the request id.",
    "not_implemented_here": "This listener does not serve this resource; of a device: it does not do what was asked.",
    # identity
    "certificate_required": "The route needs a client certificate.",
    "certificate_expired": "The certificate is expired; only renewal is open to it.",
    "certificate_revoked": "The certificate was revoked.",
    "certificate_superseded": "A newer certificate of this identity is in use.",
    "unknown_certificate": "The certificate is signed by our authority and not on its list.",
    "bad_certificate": "The certificate is not of the form that henge issues.",
    "wrong_role": "This identity may not do this: no operator, or one of another role.",
    "peer_denied": "The user behind the unix socket may not administer this daemon.",
    "approval_required": "The certificate expired too long ago to renew itself; join again with a token.",
    # enrolment
    "token_malformed": "The token is mistyped or cut; its checksum does not match.",
    "token_invalid": "No such token, or the secret does not match.",
    "token_expired": "The token's time is over.",
    "token_used": "The token has been used up.",
    "token_name": "The token does not allow this name.",
    "name_taken": "The name belongs to another device or operator.",
    "key_in_use": "The public key belongs to another identity.",
    "enrolment_closed": "The daemon accepts no join requests now.",
    "enrolment_full": "Too many join requests are waiting.",
    "rescue_closed": "Devices may not hand in what they run now.",
    "rescue_open": "Devices that the store does not know may hand in what they run.",
    "rescue_full": "As many devices have handed in what they run as are kept.",
    "rescue_incomplete": "Not everything that was handed in can be taken as it is.",
    "no_such_rescue": "No such device has handed in what it runs.",
    "no_such_join": "No join request has this id or code.",
    "bad_code": "A join code has eight digits, as the device shows them.",
    "join_mismatch": "What was revealed does not match what was committed; the request is void.",
    "join_expired": "The join request's time is over.",
    "join_approved": "The join request was approved already; typing its code again does nothing.",
    "join_rejected": "The join request was rejected.",
    "clock_suspect": "The daemon's clock cannot be right; it issues nothing until that is mended.",
    "one_csr": "Exactly one certificate request is expected.",
    "bad_csr": "The certificate request cannot be read.",
    "bad_signature": "The certificate request is not signed by its own key.",
    "key_type": "Only ECDSA P-256 keys with SHA-256 are accepted.",
    "private_key_received": "A private key was sent where a request is expected; consider it lost.",
    # objects
    "unknown_kind": "henge has no such kind of object.",
    "unknown_field": "The object has a field that its kind does not know.",
    "bad_object": "The object is not of its kind's form.",
    "no_such_object": "There is no object of this kind and name.",
    "no_such_device": "There is no such device.",
    "no_such_schema": "The schema named does not exist.",
    "no_such_revision": "There is no such revision, or it has been dropped.",
    "no_document": "The device has no document (it has no schema).",
    "in_use": "The object is in use by others.",
    "too_wide": "The change concerns too many devices to be made without saying that all at once are meant.",
    "managed": "An object belongs to an apply-set, and the change is made by hand or for another set.",
    "documents_differ": "Devices would get other documents although the caller expects that none does.",
    "read_only": "The object is built in or derived and cannot be written.",
    "stale": "The object was changed by somebody else first.",
    "no_such_secret": "There is no secret of this name.",
    "secrets_locked": "The key of the secrets is missing or not the right one; what holds no secret goes on.",
    "if_match_required": "Replacing an object needs If-Match with the version being replaced.",
    "exists": "What is to be made exists already.",
    "audit_broken": "An audit record is not what the chain of digests says.",
    # configuration
    "does_not_fit": "Values do not fit the schema.",
    "undeclared_field": "No schema declares this field.",
    "too_many_layers": "More groups set values of one device than are merged.",
    "conflicting_groups": "Two groups of equal priority set the same field differently for one device.",
    "document_too_large": "The rendered document exceeds the device's limit.",
    "bad_selector": "The label selector cannot be read.",
    "bad_path": "The field path cannot be read.",
    "bad_schema": "The schema is outside of what henge accepts.",
    "remote_ref": "A schema may refer only to its own $defs.",
    "cyclic_ref": "A schema refers to itself without end.",
    "unsupported_keyword": "The schema uses a keyword that henge does not support.",
    "pattern_unsupported": "The regular expression is outside of the linear-time subset.",
    "unsatisfiable": "The schema contradicts itself; no value can fit.",
    "bad_default": "A default or example does not fit its own schema.",
    # files (command line, agent)
    "bad_yaml": "The file is not YAML as henge reads it; the message names line and column.",
    "bad_file": "The file cannot be read or written.",
    "bad_setting": "A setting has an unknown name or a wrong value.",
    "bad_usage": "The command's arguments contradict each other or are incomplete.",
    "bad_key": "A key file does not hold keys of the right form.",
    "not_private": "A file that holds a secret can be read by others.",
    "not_joined": "This device has no identity yet.",
    "already_joined": "This device has an identity already.",
    "state_damaged": "The state folder holds something that is not ours or is damaged.",
    # storage
    "storage_full": "The disk or the map is full; nothing was changed.",
    "storage_failed": "The store failed; the daemon stops rather than limp.",
    "storage_corrupt": "The store's file is cut off or damaged, or a record's checksum does not match.",
    "storage_foreign": "The folder holds data that is not ours, or newer than this program.",
    "wrong_authority": "The key or file is not of the authority that it is brought for.",
    "key_elsewhere": "The server authority's key is kept elsewhere, and this needs it.",
    "rotation_step": "The authorities are not at the step of their rotation that this one follows.",
    "left_behind": "Devices or operators would be left behind by a step that nobody can take back.",
    "authority_ends": "One of the daemon's own authorities ends before long.",
    "certificate_due": "The server's own certificate should be made again, and the key for that is kept elsewhere.",
    "bad_authority": "The certificate or key of one of the daemon's own authorities is damaged or not the right one.",
    "storage_unsuitable": "The folder lies on a file system that cannot keep the store's promises.",
    "already_running": "Another daemon works on this data folder.",
    "bad_backup": "The file is no backup of henge, is cut off or damaged, or was made by a newer henge.",
    "wrong_passphrase": "The passphrase does not open the backup.",
    "bad_passphrase": "A passphrase has 8 characters at least.",
    "backup_running": "Another backup is being made.",
    "address_in_use": "The address is taken by another program.",
    "service_failed": "systemd refused, or does not run here; the message has its words.",
    # reaching a daemon
    "unreachable": "No daemon answers there.",
    "no_daemon": "No daemon is configured or found.",
    "pin_mismatch": "The server is not the one that the token or the context names.",
    "bad_trust_answer": "What answers there does not say of itself what a daemon says; perhaps it is none.",
    "no_such_context": "There is no such context.",
    # wire
    "bad_frame": "The frame is not of the protocol's form.",
    "unknown_type": "The frame's type is unknown; the link stays.",
    "unexpected": "The frame is not allowed in this state of the session.",
    "unsupported_protocol": "The protocol versions of both sides do not overlap.",
    "hello_timeout": "No hello arrived in time.",
    "replaced": "A newer link of the same device took over.",
    "bad_beacon": "An mDNS announcement is not of henge's form; it is skipped.",
    "revoked": "The device's identity was revoked.",
}
