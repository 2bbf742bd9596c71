"""Which daemon is meant, and how to speak to it.

In this order: ``--socket``, ``--server``, ``--context`` (each or its environment variable), the current context,
the admin sockets of this machine. If nothing is found, the network is asked who is there, for a suggestion only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from henge_protocol import places
from henge_protocol.errors import Denied, HengeError, Invalid, NotFound, Unauthenticated, Unreachable
from hengectl.client import Client, TlsConnection, UnixConnection, unreachable

if TYPE_CHECKING:  # on the daemon's own machine nobody needs contexts: 15 ms less
    from henge_protocol.beacon import Sighting
    from hengectl.profile import Contexts, Profile


BROWSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person said about the daemon; empty texts are nothing said."""

    socket: str = ""
    server: str = ""
    context: str = ""

    def __post_init__(self) -> None:
        if sum(map(bool, (self.socket, self.server, self.context))) > 1:
            raise Invalid("bad_usage", "only one of --socket, --server and --context can be given")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything that finding a daemon depends on, so that a test can say it."""

    environ: Mapping[str, str]
    now: Callable[[], float]
    trace: Callable[[str], None] | None = None

    def contexts(self) -> Contexts:
        """The contexts of this person."""
        from hengectl import profile

        return profile.load(places.contexts_dir(self.environ))


def choose(options: Choice, environ: Mapping[str, str]) -> Choice:
    """What counts: an option if there is one, else the first variable of HENGE_SOCKET, -SERVER and -CONTEXT."""
    if options != Choice():
        return options
    for name in ("socket", "server", "context"):
        if value := environ.get(f"HENGE_{name.upper()}", ""):
            return Choice(**{name: value})
    return options


def find(choice: Choice, around: Surroundings) -> Client:
    """Return a client for the daemon that is meant; nothing is sent yet.

    Raises ``Unreachable`` ``no_daemon``, ``NotFound`` ``no_such_context``, ``Unauthenticated`` for a server nobody
    logged in to, ``Denied`` for a socket that exists and is not for us, ``Invalid`` for broken settings.
    """
    if choice.socket:
        return at_socket(Path(choice.socket), around)
    if choice.server:
        return _at_server(choice.server, around)
    contexts = _contexts_or_none(around)
    if choice.context:
        return at_profile((contexts or around.contexts()).profile(choice.context), around)
    if contexts and contexts.current:
        return at_profile(contexts.profile(contexts.current), around)
    return _on_this_machine(places.admin_sockets(around.environ), contexts, around)


def at_socket(path: Path, around: Surroundings) -> Client:
    """A client over a unix socket."""
    return Client(str(path), lambda timeout_s: UnixConnection(path, timeout_s), trace=around.trace)


def at_profile(chosen: Profile, around: Surroundings) -> Client:
    """A client over TLS as the operator of a context; renews the certificate when two thirds of its life are over."""
    from hengectl import profile

    credential = profile.read_credential(chosen)
    client = Client(
        chosen.server.url, _dialler(chosen), renew=_renewal(chosen), trace=around.trace,
        renew_early=lambda client: _renew_early(chosen, client),
    )  # fmt: skip
    if profile.renewal_is_due(credential, now=around.now()):
        _renew_in_passing(chosen, client)
    return client


def sightings() -> Sequence[Sighting]:
    """The daemons that announce themselves on this network, within two seconds."""
    import asyncio

    from henge_protocol.browse import browse

    return asyncio.run(browse(timeout_s=BROWSE_S))


def nothing_found(seen: Sequence[Sighting], *, stale: Path | None = None) -> Unreachable:
    """The refusal when there is nobody to talk to, with suggestions."""
    found = [(one, f"https://{_host(one.addresses[0])}:{one.port}") for one in seen if one.addresses]
    message = "no henge daemon is configured"
    if stale is not None:
        message = f"no henge daemon is running here (nobody listens on {stale})"
    if found:
        names = "".join(f"\n  {one.name}   {url}   authority {one.fp_hint or '?'}" for one, url in found)
        return Unreachable(
            "no_daemon", f"{message}. Seen on this network:{names}", cure=f"hengectl login {found[0][1]}"
        )
    return Unreachable(
        "no_daemon", message, cure="start one here with hengd, or log in to one with hengectl login https://HOST:4364"
    )


def _contexts_or_none(around: Surroundings) -> Contexts | None:
    """Somebody without a home, or with another's, has no contexts, and may still use the sockets."""
    try:
        folder = places.contexts_dir(around.environ)
    except Invalid:
        return None
    try:
        os.lstat(folder / places.CONTEXTS_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass  # reading it will say why: another daemon must not be taken because of it
    return around.contexts()


def _at_server(url: str, around: Surroundings) -> Client:
    from hengectl.address import parse_address

    try:
        address = parse_address(url)
    except Invalid as error:
        raise Invalid("bad_usage", error.message, cure=error.cure) from None
    for known in around.contexts().profiles.values():
        if known.server == address:
            return at_profile(known, around)
    raise Unauthenticated(
        "certificate_required", f"you are not logged in to {address.url}", cure=f"hengectl login {address.url}"
    )


def _on_this_machine(sockets: Sequence[Path], contexts: Contexts | None, around: Surroundings) -> Client:
    trouble = {path: _trouble(path) for path in sockets}
    for path, error in trouble.items():
        if error is None:
            return at_socket(path, around)
    for path, error in trouble.items():
        if isinstance(error, PermissionError):
            raise unreachable(str(path), error)
    if contexts and contexts.profiles:
        names = ", ".join(sorted(contexts.profiles))
        raise NotFound("no_such_context", f"no context is chosen; there are: {names}", cure="hengectl context use NAME")
    stale = next((path for path, error in trouble.items() if isinstance(error, ConnectionRefusedError)), None)
    raise nothing_found((), stale=stale)


def _trouble(path: Path) -> OSError | None:
    """Whether somebody listens there: a socket's file outlives a killed daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error
    return None


def _dialler(chosen: Profile) -> Callable[[float], TlsConnection]:
    """Opens connections with the credential as it is on disk now: after a renewal the new one."""

    def dial(timeout_s: float) -> TlsConnection:
        from henge_protocol import tls, trust
        from hengectl import profile

        credential = profile.read_credential(chosen)
        context = tls.pinned_client_context(credential.server_cas, credential.identity, passed=time.time())
        return TlsConnection(chosen.server, context, trust.server_name(chosen.fleet), timeout_s)

    return dial


def _renewal(chosen: Profile) -> Callable[[Client], None]:
    def renew(client: Client) -> None:
        from hengectl.operator import renew as renew_operator

        try:
            renew_operator(chosen, client)
        except HengeError as error:
            raise Denied(
                "certificate_expired",
                f"your certificate for {chosen.server.url} is expired and cannot be renewed ({error.message})",
                cure=f"there: hengectl token create --admin, then here: hengectl login {chosen.server.url}",
            ) from error

    return renew


def _renew_early(chosen: Profile, client: Client) -> None:
    """Renew because the daemon wants it, and use the new certificate once, so that the daemon knows that it came."""
    _renew_in_passing(chosen, client)
    with contextlib.suppress(HengeError):
        client.get("/v1/whoami")


def _renew_in_passing(chosen: Profile, client: Client) -> None:
    """A renewal that fails now is tried again by the next command; the old certificate still serves."""
    from hengectl.operator import renew as renew_operator

    before = client.outcome  # a renewal is nothing that the person asked for
    try:
        renew_operator(chosen, client)
        client.outcome = before
    except HengeError as error:
        client.outcome = before
        if client.trace is not None:
            client.trace(f"renewing the certificate failed: {error.message}")


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
