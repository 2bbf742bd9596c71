"""How long a new token can be used, and what to do with it; for every command that makes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from henge_protocol.errors import NotFound
from henge_protocol.quantity import format_duration
from hengectl.invocation import Invocation
from hengectl.kinds import DEVICE, Ref
from hengectl.render import safe

TOKEN_TTL_S: Final = 3600


def tell_next_step(invocation: Invocation, made: Mapping[str, Any], *, ttl_s: int, uses: int) -> None:
    """What to do with a new token. On standard error, so that ``$(hengectl token create)`` gets the token alone."""
    listeners = invocation.client.get("/v1/status").json().get("listeners", {})
    urls = [str(url) for url in listeners.get("devices", [])] or ["https://HOST:4364"]
    times = "once" if uses == 1 else f"{uses} times"
    invocation.note(f"It can be used {times}, within {format_duration(ttl_s)}; it is not shown again. Next:")
    name = str(made.get("name", ""))
    named = "" if "*" in name or "?" in name else f" --name {safe(name)}"
    if made.get("kind") == "admin":
        invocation.note(f"  hengectl login {safe(urls[0])}{named}")
        invocation.note("on the other machine; paste the token when asked")
        return
    invocation.note(f"  henge-agent join {safe(urls[0])}{named} --token-file -")
    invocation.note("  henge-agent run --output FILE")
    invocation.note("on the device; paste the token, then press Ctrl-D")
    if all(_is_loopback(url) for url in urls):
        invocation.note("Only devices on this machine reach that address: the daemon listens on loopback alone.")
    if not made.get("schema") and not (named and _has_schema(invocation, name)):
        invocation.note("Without a schema a new device gets no configuration: name one with --schema, or in a file.")


def _is_loopback(url: str) -> bool:
    return url.startswith(("https://127.", "https://[::1]", "https://localhost:"))


def _has_schema(invocation: Invocation, name: str) -> bool:
    try:
        device = invocation.client.read(Ref(DEVICE, name))
    except NotFound:
        return False
    return bool(device.get("spec", {}).get("schema"))
