"""What lies in ``data/ca``: both authorities, and what a rotation leaves there on its way.

::

    server-ca.crt, .key          the server authority that signs: the one that devices trust
    server-ca.offline            in the place of the key, while that is kept elsewhere: whose key
    server-ca-next.crt, .key     introduced to devices, signs after the switch
    server-ca-old.crt            signed until the switch
    client-ca.crt, .key          the client authority that signs
    client-ca-old.crt            signed before; what it signed is still let in
    client-ca-next.key           of a step that was cut off
    server.pem                   the server's certificate and its key (``leaf``)

Of each step one operation counts, a rename or a removal. What comes before it takes room and can fail, what comes
after it is done at the next start if it was cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from henge_protocol import pki
from henge_protocol.errors import Conflict, Denied, HengeError, Internal, Invalid, NotFound
from henge_protocol.keyfiles import (
    DISK,
    PRIVATE_MODE,
    Files,
    drop_prepared,
    move_file,
    place_file,
    prepare_file,
    read_private,
    read_public,
    remove_file,
    write_private,
    write_public,
)

Which = Literal["server", "client"]
BOTH: Final[tuple[Which, Which]] = ("server", "client")

LEAF: Final = "server.pem"


@dataclass(frozen=True, slots=True)
class InForce:
    """The authorities as records of certificates name them (``short``)."""

    servers: tuple[str, ...]
    """Two while a rotation is under way, the one that signs first."""
    client: str
    is_client_moving: bool
    """What another client authority signed is still let in."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the folder holds."""

    fleet: str
    server: pki.Authority
    next_server: pki.Authority | None
    old_server: bytes | None
    client: pki.Authority
    old_client: bytes | None


class Authorities:
    """The files, and each step that changes them. A step raises as ``keyfiles`` does; then nothing has changed."""

    def __init__(self, folder: Path, *, files: Files = DISK) -> None:
        """Raises ``Internal bad_authority``, ``Denied`` if a file is open to others or closed to us."""
        self.folder = folder
        self._files = files
        self.in_force: InForce
        self._read()
        for left in folder.glob(".*.new"):  # what a cut left half written; it may be a key that is kept elsewhere
            self._remove(left.name)

    @property
    def fleet(self) -> str:
        """Id of the fleet whose authorities they are."""
        return self._found.fleet

    @property
    def server(self) -> pki.Authority:
        """The server authority that signs; its key is empty while it is kept elsewhere."""
        return self._found.server

    @property
    def next_server(self) -> pki.Authority | None:
        """The one that devices are told of, until the switch."""
        return self._found.next_server

    @property
    def old_server(self) -> bytes | None:
        """Certificate of the one that signed until the switch."""
        return self._found.old_server

    @property
    def client(self) -> pki.Authority:
        """The client authority that signs."""
        return self._found.client

    @property
    def old_client(self) -> bytes | None:
        """Certificate of the one that signed before, while what it signed is let in."""
        return self._found.old_client

    @property
    def server_ders(self) -> tuple[bytes, ...]:
        """What devices and operators are told to trust: the one that signs first, two at most."""
        other = self.next_server.certificate_der if self.next_server else self.old_server
        return (self.server.certificate_der, *([other] if other else []))

    @property
    def client_ders(self) -> tuple[bytes, ...]:
        """Whose certificates are looked at, the one that signs first."""
        return (self.client.certificate_der, *([self.old_client] if self.old_client else []))

    def step(self, which: Which) -> Literal["resting", "introduced", "switched"]:
        """Where the rotation of an authority stands; a new client authority signs as soon as it is introduced."""
        if which == "client":
            return "introduced" if self.old_client else "resting"
        return "introduced" if self.next_server else "switched" if self.old_server else "resting"

    # ---- steps ---------------------------------------------------------------------------------------

    def introduce(self, *, now: float) -> None:
        """Make the next server authority; from now on it is told."""
        made = pki.make_ca("server", self.fleet, now=now)
        self._do(lambda: self._write_next("server", made))

    def withdraw(self) -> None:
        """Forget the next server authority."""

        def remove() -> None:
            self._remove("server-ca-next.crt")
            self._remove("server-ca-next.key")

        self._do(remove)

    def switch(self, leaf_pem: bytes) -> None:
        """Let the next server authority sign; ``leaf_pem`` is the server's certificate by it, with its key."""

        def change() -> None:
            prepare_file(self._path(LEAF), leaf_pem, mode=PRIVATE_MODE, files=self._files)
            try:
                self._take_over("server")
            except BaseException:
                drop_prepared(self._path(LEAF), files=self._files)
                raise
            place_file(self._path(LEAF), files=self._files)

        self._do(change)

    def replace_client(self, *, now: float) -> None:
        """Let a new client authority sign, beside the one that has signed so far."""
        made = pki.make_ca("client", self.fleet, now=now)

        def change() -> None:
            self._write_next("client", made)
            self._take_over("client")

        self._do(change)

    def drop_old(self, which: Which) -> None:
        """Trust no more the one that signed before."""
        self._do(lambda: self._remove(f"{which}-ca-old.crt"))

    def remove_server_key(self) -> None:
        """Forget the server authority's key; whoever calls has seen that it is kept elsewhere."""
        mark = pki.fingerprint(self.server.certificate_der).hex().encode() + b"\n"

        def change() -> None:
            write_private(self._path("server-ca.offline"), mark, files=self._files)
            self._remove("server-ca.key")

        self._do(change)

    def check_server_key(self, key_pem: bytes) -> pki.Authority:
        """The server authority with a key that somebody brings; ``Conflict wrong_authority`` if it is not its key."""
        try:
            if pki.key_matches(self.server.certificate_der, key_pem):
                return pki.Authority(self.server.certificate_der, key_pem)
        except HengeError:
            pass
        raise Conflict(
            "wrong_authority",
            f"that key is not of the server authority {short(self.server.certificate_der)}; nothing was changed",
            cure="name the file that 'hengd ca export' wrote of this daemon; see: hengd ca status",
        )

    def put_server_key(self, key_pem: bytes) -> None:
        """Take the server authority's key back; raises as ``check_server_key``."""
        self.check_server_key(key_pem)

        def change() -> None:
            write_private(self._path("server-ca.key"), key_pem, files=self._files)

        self._do(change)

    def read_leaf(self) -> bytes:
        """The server's certificate with its key; raises as ``read_private``."""
        return read_private(self._path(LEAF))

    def keep_leaf(self, pem: bytes) -> None:
        """Store the server's certificate with its key."""
        write_private(self._path(LEAF), pem, files=self._files)

    # ---- files ---------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _do(self, change: Callable[[], object]) -> None:
        """Change the files, then see what is there, also after a step that failed."""
        try:
            change()
        finally:
            self._read()

    def _write_next(self, which: Which, made: pki.Authority) -> None:
        key = self._path(f"{which}-ca-next.key")
        try:
            write_private(key, made.key_pem, files=self._files)
            pem = pki.certificate_pem(made.certificate_der)
            write_public(self._path(f"{which}-ca-next.crt"), pem, files=self._files)
        except HengeError:
            self._remove(key.name)
            raise

    def _take_over(self, which: Which) -> None:
        """The next one signs from the first rename on; the second is made up for at the next start."""
        files, current = self._files, self._path(f"{which}-ca.crt")
        write_public(self._path(f"{which}-ca-old.crt"), read_public(current), files=files)
        move_file(self._path(f"{which}-ca-next.crt"), current, files=files)
        move_file(self._path(f"{which}-ca-next.key"), self._path(f"{which}-ca.key"), files=files)

    def _read(self) -> None:
        for which in BOTH:
            self._go_on(which)
        server, client = self._authority("server"), self._authority("client")
        fleet = pki.fleet_of_authority("server", server)
        for which in BOTH:
            self._tidy(which)
        following = self._authority("server", "server-ca-next") if self._has("server-ca-next.crt") else None
        self._found = _Found(fleet, server, following, self._old("server"), client, self._old("client"))
        self._check_fleet()
        servers = tuple(short(der) for der in self.server_ders)
        self.in_force = InForce(servers, short(client.certificate_der), self.old_client is not None)

    def _check_fleet(self) -> None:
        found = self._found
        others: list[tuple[Which, str, pki.Authority | bytes | None]] = [
            ("client", "client-ca", found.client), ("server", "server-ca-next", found.next_server),
            ("server", "server-ca-old", found.old_server), ("client", "client-ca-old", found.old_client),
        ]  # fmt: skip
        for which, name, one in others:
            if one is not None:
                authority = pki.Authority(one, b"") if isinstance(one, bytes) else one
                fleet = pki.fleet_of_authority(which, authority)
                if fleet != found.fleet:
                    raise self._bad(name, f"it is of fleet {fleet}, the server authority of {found.fleet}")

    def _go_on(self, which: Which) -> None:
        """Complete a step that was cut between its two renames."""
        key = self._path(f"{which}-ca-next.key")
        if not self._has(key.name) or self._has(f"{which}-ca-next.crt"):
            return
        try:
            certificate = pki.certificate_der(read_public(self._path(f"{which}-ca.crt")))
            is_its = pki.key_matches(certificate, read_private(key))
        except HengeError:
            return  # told when the authority itself is read
        if is_its:
            move_file(key, self._path(f"{which}-ca.key"), files=self._files)

    def _tidy(self, which: Which) -> None:
        """Remove what a step left that was cut before it counted."""
        coming, old = f"{which}-ca-next", self._path(f"{which}-ca-old.crt")
        if which == "client":
            self._remove(f"{coming}.crt")
        if not self._has(f"{coming}.crt"):
            self._remove(f"{coming}.key")
        if self._has(old.name) and read_public(old) == read_public(self._path(f"{which}-ca.crt")):
            self._remove(old.name)
        if which == "server" and self._has("server-ca.key"):
            self._remove("server-ca.offline")

    def _remove(self, name: str) -> None:
        if self._has(name):
            remove_file(self._path(name), files=self._files)

    def _has(self, name: str) -> bool:
        return self._path(name).exists()

    def _authority(self, which: Which, name: str = "") -> pki.Authority:
        name = name or f"{which}-ca"
        try:
            certificate = pki.certificate_der(read_public(self._path(f"{name}.crt")))
            authority = pki.Authority(certificate, self._key(name, certificate))
            pki.fleet_of_authority(which, authority)
        except Denied:
            raise
        except HengeError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            raise self._bad(name, error.message) from None
        return authority

    def _key(self, name: str, certificate: bytes) -> bytes:
        try:
            key_pem = read_private(self._path(f"{name}.key"))
        except NotFound:
            offline = self._path(f"{name}.offline")
            if offline.exists() and read_private(offline).strip() == pki.fingerprint(certificate).hex().encode():
                return b""
            raise
        if not key_pem:
            raise Invalid("key_type", "the file of the key is empty")
        return key_pem

    def _old(self, which: Which) -> bytes | None:
        name = f"{which}-ca-old"
        if not self._has(f"{name}.crt"):
            return None
        try:
            der = pki.certificate_der(read_public(self._path(f"{name}.crt")))
            pki.fleet_of_authority(which, pki.Authority(der, b""))
        except HengeError as error:
            raise self._bad(name, error.message) from None
        return der

    def _bad(self, name: str, reason: str) -> Internal:
        which, _, rest = name.partition("-ca")
        files = f"{name}.crt" if rest == "-old" else f"{name}.crt, {name}.key"
        cure = "put both files back from a backup; nothing was changed. Without them every device must join again"
        if rest:
            cure = f"put them back from a backup, or move them away ({files}) and begin anew: hengd ca status"
        said = f"the {which} authority in {self.folder} ({files}) cannot be used: {reason}"
        return Internal("bad_authority", said, cure=cure)


def make_authorities(folder: Path, fleet: str, *, now: float) -> None:
    """The first two authorities of a fleet, into a folder that is empty."""
    for which in BOTH:
        authority = pki.make_ca(which, fleet, now=now)
        write_private(folder / f"{which}-ca.key", authority.key_pem)
        write_public(folder / f"{which}-ca.crt", pki.certificate_pem(authority.certificate_der))


def short(der: bytes) -> str:
    """The first 16 digits of a certificate's fingerprint, as mDNS announces them."""
    return pki.fingerprint(der).hex()[:16]
