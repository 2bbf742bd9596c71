"""Contexts: the daemons that a person has logged in to, and the credential for each.

``config.toml`` is for people to read and edit; ``credentials/NAME/`` holds the key, readable by its owner only.
A login writes the credential first and names it in ``config.toml`` last, so a cut in between leaves a folder
that nobody refers to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from henge_protocol import keyfiles
from henge_protocol.errors import Denied, HengeError, Invalid, NotFound
from henge_protocol.model import check_name, is_name
from henge_protocol.places import CONTEXTS_NAME
from henge_protocol.quantity import format_duration
from henge_protocol.trust import split_certificates
from hengectl.address import Address, parse_address

IDENTITY_FILE: Final = "identity.pem"
AUTHORITY_FILE: Final = "server-ca.der"
DATES_FILE: Final = "dates.json"

_ROOM_BYTES: Final = 16 * 1024
"""More than a credential takes, or a list of contexts."""
_FIELDS: Final = {"server": str, "fleet": str, "ca_fingerprint": str, "credential": str}


@dataclass(frozen=True, slots=True)
class Profile:
    """One context: where the daemon is, which fleet it serves, and the folder with the credential."""

    name: str
    server: Address
    fleet: str
    ca_fingerprint: str
    """SHA-256 of the server authority's certificate in DER, in hex, as it was at the login; see ``authority_of``."""
    credential: Path


@dataclass(frozen=True, slots=True)
class Contexts:
    """What ``config.toml`` says."""

    path: Path
    current: str = ""
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def profile(self, name: str) -> Profile:
        """The context of that name; ``NotFound`` ``no_such_context`` lists those there are."""
        found = self.profiles.get(name)
        if found is None:
            known = ", ".join(sorted(self.profiles)) or "none"
            cure = "see: hengectl context list" if self.profiles else "hengectl login URL"
            raise NotFound("no_such_context", f"there is no context {name!r}; there are: {known}", cure=cure)
        return found


@dataclass(frozen=True, slots=True)
class Credential:
    """What proves who we are, and until when."""

    identity: Path
    """Certificate and private key in PEM, one private file."""
    server_cas: tuple[bytes, ...]
    """The daemon's authorities (DER), the one that signs first; two while that is being replaced."""
    renew_after: float
    """Unix seconds; from then on the certificate is renewed when it is used."""


def load(folder: Path) -> Contexts:
    """Read the contexts; none if there is no file. ``Invalid`` ``bad_setting`` names file and key."""
    path = folder / CONTEXTS_NAME
    try:
        data = keyfiles.read_public(keyfiles.followed(path))
    except NotFound:
        return Contexts(path)
    import tomllib  # 12 ms that people without contexts need not wait for

    try:
        text = data.decode("utf-8-sig")
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid("bad_setting", f"{path} is not TOML: {error}", cure=f"mend or remove {path}") from None
    return _contexts(path, table)


def save(contexts: Contexts) -> None:
    """Write the contexts in one step; ``Invalid`` ``bad_file`` or ``StorageFull``."""
    keyfiles.make_private_dir(contexts.path.parent)
    keyfiles.replace_file(keyfiles.followed(contexts.path), _toml(contexts).encode())


def add(contexts: Contexts, profile: Profile) -> Contexts:
    """The contexts with one more (or another of the same name), which becomes the current one."""
    return replace(contexts, current=profile.name, profiles={**contexts.profiles, profile.name: profile})


def use(contexts: Contexts, name: str) -> Contexts:
    """The contexts with another current one; ``NotFound`` ``no_such_context``."""
    return replace(contexts, current=contexts.profile(name).name)


def rename(contexts: Contexts, name: str, to: str) -> Contexts:
    """The contexts with one renamed; its credential stays where it is. ``NotFound``, ``Invalid`` ``exists``."""
    profile = contexts.profile(name)
    if check_name(to, "context name") in contexts.profiles:
        raise Invalid("exists", f"there is a context {to!r} already", cure=f"hengectl context delete {to}")
    renamed = {(to if key == name else key): value for key, value in contexts.profiles.items()}
    renamed[to] = replace(profile, name=to)
    return replace(contexts, current=to if contexts.current == name else contexts.current, profiles=renamed)


def forget(contexts: Contexts, name: str) -> Contexts:
    """Remove a context and its credential, and return the contexts without it; ``NotFound``."""
    import shutil

    profile = contexts.profile(name)
    left = {key: value for key, value in contexts.profiles.items() if key != name}
    current = "" if contexts.current == name else contexts.current
    remaining = replace(contexts, current=current, profiles=left)
    save(remaining)
    if profile.credential.parent == _credentials(contexts.path):  # ours to remove, not a folder a person chose
        shutil.rmtree(profile.credential, ignore_errors=True)
    return remaining


def credential_dir(contexts: Contexts, name: str) -> Path:
    """Where a new context's credential goes: a folder that no other context uses."""
    taken = {profile.credential for profile in contexts.profiles.values() if profile.name != name}
    folder = _credentials(contexts.path)
    candidates = (folder / (name if number == 1 else f"{name}-{number}") for number in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate not in taken)


def prepare(contexts: Contexts) -> None:
    """Make the folders and see that a credential fits, before a token that counts once is spent on it.

    Raises as ``write_credential`` and ``save``.
    """
    folder = _credentials(contexts.path)
    keyfiles.make_private_dir(contexts.path.parent)
    keyfiles.make_private_dir(folder)
    for path in (folder / IDENTITY_FILE, keyfiles.followed(contexts.path)):
        keyfiles.prepare_file(path, bytes(_ROOM_BYTES))
        keyfiles.drop_prepared(path)


def write_credential(folder: Path, *, identity_pem: bytes, server_cas: Sequence[bytes], renew_after: float) -> None:
    """Store a credential. Key and certificate are one file, so a cut cannot leave a pair that does not match."""
    keyfiles.make_private_dir(folder.parent.parent)
    keyfiles.make_private_dir(folder.parent)
    keyfiles.make_private_dir(folder)
    keyfiles.write_private(folder / AUTHORITY_FILE, b"".join(server_cas))
    keyfiles.write_private(folder / IDENTITY_FILE, identity_pem)
    keyfiles.write_private(folder / DATES_FILE, json.dumps({"renew_after": renew_after}).encode())


def read_credential(profile: Profile) -> Credential:
    """What ``write_credential`` stored; ``Denied`` ``not_private`` or ``Invalid`` ``bad_setting`` if damaged."""
    folder = profile.credential
    try:
        keyfiles.read_private(folder / IDENTITY_FILE)  # for its refusals: OpenSSL would read an open key
        server_cas = split_certificates(keyfiles.read_private(folder / AUTHORITY_FILE))
        return Credential(folder / IDENTITY_FILE, server_cas, _renew_after(folder))
    except NotFound:
        raise Denied(
            "certificate_required",
            f"the context {profile.name!r} has no credential in {folder}",
            cure=f"hengectl login {profile.server.url}",
        ) from None


def authority_of(profile: Profile) -> str:
    """SHA-256 (hex) of the authority that signs, as it was told last; of the one at the login if that is unreadable."""
    try:
        stored = keyfiles.read_private(profile.credential / AUTHORITY_FILE)
        return hashlib.sha256(split_certificates(stored)[0]).hexdigest()
    except (HengeError, IndexError):
        return profile.ca_fingerprint


def renewal_is_due(credential: Credential, *, now: float) -> bool:
    """Whether two thirds of the certificate's life are over."""
    return now >= credential.renew_after


def remaining(until: float, *, now: float) -> str:
    """``29d3h`` until a moment, or ``now``."""
    return format_duration(until - now) if until > now else "now"


def _renew_after(folder: Path) -> float:
    try:
        value = json.loads(keyfiles.read_private(folder / DATES_FILE))["renew_after"]
        return float(value)
    except (ValueError, KeyError, TypeError):
        raise Invalid("bad_setting", f"{folder / DATES_FILE} is damaged", cure="hengectl login URL again") from None


def _credentials(config: Path) -> Path:
    return config.parent / "credentials"


def _contexts(path: Path, table: Mapping[str, Any]) -> Contexts:
    unknown = set(table) - {"current", "contexts"}
    if unknown:
        raise _bad(path, f"unknown key {sorted(unknown)[0]!r}; there are current and contexts")
    current, listed = table.get("current", ""), table.get("contexts", {})
    if not isinstance(current, str) or not isinstance(listed, dict):
        raise _bad(path, "current is a text and contexts are tables")
    profiles = {name: _profile(path, name, fields) for name, fields in listed.items()}
    return Contexts(path, current, profiles)


def _profile(path: Path, name: str, fields: object) -> Profile:
    if not isinstance(fields, dict) or not is_name(name):
        raise _bad(path, f"contexts.{name} is not a table, or its name has other characters than a-z, 0-9 and hyphens")
    unknown = set(fields) - set(_FIELDS)
    if unknown:
        raise _bad(path, f"contexts.{name}: unknown key {sorted(unknown)[0]!r}; there are {', '.join(_FIELDS)}")
    for key, kind in _FIELDS.items():
        if not isinstance(fields.get(key), kind) or not fields[key]:
            raise _bad(path, f"contexts.{name}.{key} is missing or not a text")
    try:
        server = parse_address(fields["server"])
    except Invalid as error:
        raise _bad(path, f"contexts.{name}.server: {error.message}") from None
    credential = path.parent / Path(fields["credential"])  # an absolute path stays as it is
    return Profile(name, server, fields["fleet"], fields["ca_fingerprint"], credential)


def _bad(path: Path, message: str) -> Invalid:
    return Invalid("bad_setting", f"{path}: {message}", cure=f"mend {path}")


def _toml(contexts: Contexts) -> str:
    """Only texts have to be written, and JSON's spelling of a text in ASCII is TOML's."""
    lines = [f"current = {json.dumps(contexts.current)}"] if contexts.current else []
    for name, profile in sorted(contexts.profiles.items()):
        lines += ["", f"[contexts.{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in _written(profile, contexts.path).items()]
    return "\n".join(lines).lstrip() + "\n"


def _written(profile: Profile, path: Path) -> dict[str, str]:
    credential = profile.credential
    short = credential.relative_to(path.parent) if credential.is_relative_to(path.parent) else credential
    return {
        "server": profile.server.url,
        "fleet": profile.fleet,
        "ca_fingerprint": profile.ca_fingerprint,
        "credential": str(short),
    }
