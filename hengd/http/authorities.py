"""The care of the authorities: where their rotation stands, its steps, and the server authority's key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

from aiohttp import web

from hengd.authorities import Authorities
from hengd.backup import Backups
from hengd.http import shapes, shapes_authorities
from hengd.http.edge import Auth, Route, author_of
from hengd.http.parse import Query, flag_field, json_object, no_body, text_field
from hengd.http.views import json_response, moment
from hengd.leaf import Leaf
from hengd.rules.anchors import SHOWN, Owner, advice
from hengd.rules.devices import Devices
from hengd.rules.rotation import MAX_WITHIN_S, Rotation, Step
from henge_protocol import pki
from henge_protocol.errors import Invalid
from henge_protocol.sealedfile import MAX_PASSPHRASE_BYTES, check_passphrase

MAX_KEY_CHARS: Final = 4096


class AuthorityRoutes:
    """Show, rotate, keep elsewhere."""

    def __init__(self, rotation: Rotation, authorities: Authorities, devices: Devices, backups: Backups) -> None:
        self._rotation = rotation
        self._authorities = authorities
        self._devices = devices
        self._backups = backups

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        form = shapes_authorities
        yield Route("GET", "/v1/authorities", Auth.ADMIN, self.show, gives={200: form.Authorities})
        steps: tuple[tuple[str, Callable[[web.Request], Awaitable[web.Response]], Any], ...] = (
            ("server/begin", self.begin, form.WithinBody),
            ("server/switch", self.switch, form.LeaveBehindBody),
            ("server/finish", self.finish, shapes.NoBody),
            ("server/cancel", self.cancel, shapes.NoBody),
            ("client/begin", self.begin_client, form.WithinBody),
            ("client/finish", self.finish_client, form.LeaveBehindBody),
            ("server/remove-key", self.remove_key, form.RemoveKeyBody),
            ("server/import-key", self.import_key, form.KeyBody),
            ("server/reissue", self.reissue, form.ReissueBody),
        )
        for path, handler, takes in steps:
            needs = takes in (form.RemoveKeyBody, form.KeyBody)
            yield Route(
                "POST", f"/v1/authorities/{path}", Auth.ADMIN, handler,
                takes=takes, body_optional=not needs, gives={200: form.Stepped},
            )  # fmt: skip
        yield Route(
            "POST", "/v1/authorities/export", Auth.ADMIN, self.export,
            takes=shapes.BackupBody, gives={200: shapes.BACKUP},
        )  # fmt: skip

    async def show(self, request: web.Request) -> web.Response:
        """Both authorities, who has followed, the server's certificate, and what to do next."""
        no_body(request)
        Query(request)
        everybody, record, authorities = await self._rotation.owners(), self._rotation.record(), self._authorities
        behind, unmoved = self._rotation.behind(everybody), self._rotation.unmoved(everybody)
        server = {
            "step": authorities.step("server"),
            "switched": moment(record.switched),
            "authorities": _held_of_server(authorities),
            "follow": self._tally(everybody, behind),
        }
        client = {
            "step": authorities.step("client"),
            "switched": "",
            "authorities": _held_of_client(authorities),
            "follow": self._tally(everybody, unmoved),
        }
        leaf = self._rotation.leaf()
        return json_response(
            {
                "kind": "Authorities", "fleet": authorities.fleet, "within_s": record.within_s,
                "server": server, "client": client, "certificate": _leaf_view(leaf),
                "next": advice(authorities, leaf, record, behind=len(behind), unmoved=len(unmoved),
                               now=self._rotation.now()),
            }
        )  # fmt: skip

    async def begin(self, request: web.Request) -> web.Response:
        """Make the next server authority, of which devices and operators are told when they renew."""
        within_s = await _within_s(request)
        return _stepped(await self._rotation.introduce(within_s, author_of(request)))

    async def switch(self, request: web.Request) -> web.Response:
        """Let the next server authority sign, once everybody knows it."""
        leave_behind = await _leave_behind(request)
        return _stepped(await self._rotation.switch(author_of(request), leave_behind=leave_behind))

    async def finish(self, request: web.Request) -> web.Response:
        """Tell nobody any more of the server authority that signed before."""
        await _body(request, shapes.NoBody)
        return _stepped(await self._rotation.finish(author_of(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """Give the next server authority up, before it signs."""
        await _body(request, shapes.NoBody)
        return _stepped(await self._rotation.cancel(author_of(request)))

    async def begin_client(self, request: web.Request) -> web.Response:
        """Let a new client authority sign; everybody gets a certificate of it by renewing."""
        within_s = await _within_s(request)
        return _stepped(await self._rotation.replace_client(within_s, author_of(request)))

    async def finish_client(self, request: web.Request) -> web.Response:
        """Let in no more what the client authority signed that was in force before."""
        leave_behind = await _leave_behind(request)
        return _stepped(await self._rotation.finish_client(author_of(request), leave_behind=leave_behind))

    async def remove_key(self, request: web.Request) -> web.Response:
        """Remove the server authority's key, which the caller keeps from now on."""
        body = await _body(request, shapes_authorities.RemoveKeyBody)
        fingerprint = text_field(body, "fingerprint", default=None)
        return _stepped(await self._rotation.remove_key(fingerprint, author_of(request)))

    async def import_key(self, request: web.Request) -> web.Response:
        """Take the server authority's key back."""
        body = await _body(request, shapes_authorities.KeyBody)
        return _stepped(await self._rotation.import_key(_key(body), author_of(request)))

    async def reissue(self, request: web.Request) -> web.Response:
        """Make the server's certificate anew, with a key that is brought for that and not kept."""
        body = await _body(request, shapes_authorities.ReissueBody)
        return _stepped(await self._rotation.reissue(_key(body) if "key" in body else b"", author_of(request)))

    async def export(self, request: web.Request) -> web.Response:
        """Both authorities with their keys in one file, sealed with the caller's passphrase."""
        body = await _body(request, shapes.BackupBody)
        passphrase = check_passphrase(text_field(body, "passphrase", default=None, max_chars=MAX_PASSPHRASE_BYTES))
        pieces = await self._backups.authorities(passphrase, author_of(request))
        sealed = await asyncio.to_thread(b"".join, pieces)
        return web.Response(body=sealed, content_type=shapes.BACKUP.type)

    def _tally(self, everybody: Sequence[Owner], behind: Sequence[Owner]) -> dict[str, Any]:
        totals = {kind: sum(one.kind == kind for one in everybody) for kind in ("device", "operator")}
        lag = {kind: sum(one.kind == kind for one in behind) for kind in totals}
        return {
            "devices": totals["device"] - lag["device"], "devices_total": totals["device"],
            "operators": totals["operator"] - lag["operator"], "operators_total": totals["operator"],
            "behind": [self._behind_view(one) for one in behind[:SHOWN]],
        }  # fmt: skip

    def _behind_view(self, owner: Owner) -> dict[str, Any]:
        if owner.kind == "operator":
            return {"kind": owner.kind, "name": owner.name, "connection": "", "since": ""}
        connection, since = self._devices.connection(owner.subject)
        return {"kind": owner.kind, "name": owner.name, "connection": connection, "since": moment(since)}


async def _body(request: web.Request, shape: type[shapes.Shape]) -> dict[str, Any]:
    Query(request)
    return await json_object(request, shapes.fields_of(shape)) if request.can_read_body else {}


async def _within_s(request: web.Request) -> int | None:
    body = await _body(request, shapes_authorities.WithinBody)
    if "within_s" not in body:
        return None
    within_s = body["within_s"]
    if type(within_s) is not int or not 1 <= within_s <= MAX_WITHIN_S:
        raise Invalid("bad_object", f"within_s is not a number of seconds from 1 to {MAX_WITHIN_S}, a week")
    return within_s


async def _leave_behind(request: web.Request) -> bool:
    return flag_field(await _body(request, shapes_authorities.LeaveBehindBody), "leave_behind")


def _key(body: dict[str, Any]) -> bytes:
    return text_field(body, "key", default=None, max_chars=MAX_KEY_CHARS).encode("ascii", "replace")


def _stepped(step: Step) -> web.Response:
    return json_response({"changed": step.changed, "void_tokens": step.tokens})


def _held_of_server(authorities: Authorities) -> list[dict[str, str]]:
    found = [_held("signs", authorities.server.certificate_der, "here" if authorities.server.key_pem else "elsewhere")]
    if authorities.next_server is not None:
        found.append(_held("next", authorities.next_server.certificate_der, "here"))
    if authorities.old_server is not None:
        found.append(_held("old", authorities.old_server, "gone"))
    return found


def _held_of_client(authorities: Authorities) -> list[dict[str, str]]:
    old = [_held("old", authorities.old_client, "gone")] if authorities.old_client else []
    return [_held("signs", authorities.client.certificate_der, "here"), *old]


def _held(does: str, der: bytes, key: str) -> dict[str, str]:
    fingerprint, ends = pki.fingerprint(der).hex(), float(pki.validity(der)[1])
    return {"does": does, "fingerprint": fingerprint, "ends": moment(ends), "key": key}


def _leaf_view(leaf: Leaf) -> dict[str, Any]:
    trouble = f"{leaf.trouble.message} ({leaf.trouble.cure})" if leaf.trouble else ""
    return {"names": sorted(leaf.names), "ends": moment(leaf.ends), "due": moment(leaf.due), "trouble": trouble}
