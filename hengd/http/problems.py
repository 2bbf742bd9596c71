"""From refusals to RFC 9457 problem documents: the one table of HTTP statuses."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from hengd.http.head import Refusal
from henge_protocol.errors import HengeError

STATUS: Final[dict[str, int]] = {
    "malformed": 400,
    "unauthenticated": 401,
    "denied": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timed_out": 408,
    "conflict": 409,
    "gone": 410,
    "stale": 412,
    "too_large": 413,
    "unsupported_media": 415,
    "misdirected": 421,
    "invalid": 422,
    "upgrade_required": 426,
    "precondition_required": 428,
    "limited": 429,
    "internal": 500,
    "unavailable": 503,
    "storage_full": 507,
}
"""Status by kind of error; ``docs/errors.md`` shows it to people."""

CLOSING: Final = frozenset({400, 408, 413, 431})
"""After these the rest of the connection's bytes cannot be trusted to be a request."""

RETRY_AFTER_S: Final = 5
_HEADERS: Final = {"allow": "Allow", "etag": "ETag"}


def status_of(error: HengeError) -> int:
    """The HTTP status of a refusal."""
    return STATUS.get(error.kind, 500)


def problem_of(error: HengeError, request_id: str = "") -> dict[str, Any]:
    """The problem document of a refusal."""
    status = status_of(error)
    problem: dict[str, Any] = {
        "type": f"urn:henge:error:{error.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": _sentence(error.message, most=600),
    }
    if error.cure:
        problem["cure"] = _sentence(error.cure, most=600)
    if error.problems:
        problem["errors"] = [
            {"pointer": spot.pointer, "message": _sentence(spot.message, most=300), "object": spot.object}
            for spot in error.problems
        ]
    if request_id:
        problem["request_id"] = request_id
    return {**problem, **error.extra}


def problem_response(error: HengeError, request_id: str) -> web.Response:
    """The whole answer to a request that was refused."""
    status = status_of(error)
    headers = {name: str(error.extra[key]) for key, name in _HEADERS.items() if key in error.extra}
    if status in (429, 503):
        headers["Retry-After"] = str(error.extra.get("retry_after_s", RETRY_AFTER_S))
    text = json.dumps(problem_of(error, request_id), ensure_ascii=False, default=str)
    body = text.encode("utf-8", "backslashreplace")
    response = web.Response(status=status, body=body, headers=headers, content_type="application/problem+json")
    stamp(response, request_id)
    if status in CLOSING:
        response.force_close()
    return response


def stamp(response: web.StreamResponse, request_id: str) -> None:
    """Set the headers that every answer has."""
    response.headers["Henge-Request-Id"] = request_id
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


def refusal_of(error: HengeError) -> Refusal:
    """The same refusal for a WebSocket opening, which is answered before the HTTP library is involved."""
    rescue = str(error.extra.get("rescue", ""))
    return Refusal(status_of(error), error.code, error.message, cure=error.cure, rescue=rescue)


def _sentence(text: str, *, most: int) -> str:
    """Text for people, which may name fields that people made: nothing in it moves a cursor or turns words round."""
    cut = text[:most]
    return cut if cut.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)
