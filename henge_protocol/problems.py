"""What a daemon's refusing answer means to those who asked: the HTTP statuses of ``docs/errors.md``, read backwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from henge_protocol import errors
from henge_protocol.errors import CODES, HengeError, Problem

REFUSALS: Final[Mapping[int, tuple[type[HengeError], str]]] = {
    400: (errors.Malformed, "bad_request"),
    401: (errors.Unauthenticated, "certificate_required"),
    403: (errors.Denied, "wrong_role"),
    404: (errors.NotFound, "no_such_object"),
    405: (errors.MethodNotAllowed, "method_not_allowed"),
    408: (errors.TimedOut, "request_timeout"),
    409: (errors.Conflict, "in_use"),
    410: (errors.Gone, "join_expired"),
    412: (errors.Stale, "stale"),
    413: (errors.TooLarge, "too_large"),
    415: (errors.UnsupportedMedia, "unsupported_media"),
    421: (errors.Misdirected, "wrong_host"),
    422: (errors.Invalid, "bad_object"),
    426: (errors.UpgradeRequired, "upgrade_required"),
    428: (errors.PreconditionRequired, "if_match_required"),
    429: (errors.Limited, "rate_limited"),
    500: (errors.Internal, "internal"),
    503: (errors.Unavailable, "stopping"),
    507: (errors.StorageFull, "storage_full"),
}
"""The kind of error that a status stands for, and the code to file it under when the daemon's is not known here."""


def refusal_by_status(status: int) -> tuple[type[HengeError], str]:
    """Kind and substitute code for a refusing status; one that henge never sends is the peer's own failure."""
    return REFUSALS.get(status, (errors.Internal, "internal"))


def read_problem(body: bytes) -> Mapping[str, Any]:
    """The members of a problem document (RFC 9457); none of a body that is something else."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def refusal_of(status: int, problem: Mapping[str, Any], *, extra: Mapping[str, object] | None = None) -> HengeError:
    """The error that a refusing answer stands for, whatever its members are; its texts are the peer's, as they came."""
    kind, substitute = refusal_by_status(status)
    code = str(problem.get("code", ""))
    told = str(problem.get("detail") or problem.get("title") or f"the daemon answered {status}")
    return kind(
        code if code in CODES else substitute, told,
        cure=str(problem.get("cure") or ""), problems=_spots(problem.get("errors")), extra=extra,
    )  # fmt: skip


def _spots(listed: object) -> list[Problem]:
    spots = [spot for spot in listed if isinstance(spot, dict)] if isinstance(listed, list) else []
    return [
        Problem(str(spot.get("pointer", "")), str(spot.get("message", "")), str(spot.get("object") or ""))
        for spot in spots
    ]
