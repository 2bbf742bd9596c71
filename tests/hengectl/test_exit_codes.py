"""Every command's exit codes, as one table: right uses end with 0, each kind of trouble with its own code."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hengectl import yamltext
from hengectl.refusal import CONFLICT, INVALID, NO, NOT_ALLOWED, NOT_FOUND, OK, PARTIAL, TIMED_OUT, UNREACHABLE, USAGE
from tests.hengd.http.joinkit import ask
from tests.hengd.rescuekit import open_window, rescued
from tests.hengectl.conftest import Face
from tests.hengectl.test_cli import commands
from tests.service import Admin, Service, device, group, schema

LOCAL = {"login", "logout", "paths", "completion", "version"} | {
    f"context {word}" for word in ("list", "use", "rename", "delete")
}
"""Commands that need no daemon (or, version, do without one)."""

TABLE = [
    ("apply -f FLEET", OK),
    ("apply -f FLEET --if-revision 1", OK),
    ("apply -f FLEET --if-revision 7", CONFLICT),
    ("apply -f FLEET --set git --prune", OK),
    ("apply -f FLEET --prune", USAGE),
    ("apply", USAGE),
    ("apply -f BAD", INVALID),
    ("apply -f ABSENT", NOT_FOUND),
    ("apply -f FLEET --timeout 0s", USAGE),
    ("diff -f FLEET", OK),
    ("diff -f OTHER", NO),
    ("diff -f BAD", INVALID),
    ("diff -f ABSENT", NOT_FOUND),
    ("diff --rev 1..", OK),
    ("diff --rev 0..1", NO),
    ("diff --rev 1..99", NOT_FOUND),
    ("diff --rev x..1", USAGE),
    ("diff device/lamp-1", USAGE),
    ("diff -f FLEET --rev 1..", USAGE),
    ("diff", USAGE),
    ("check -f FLEET", OK),
    ("check -f BAD", INVALID),
    ("check -f FLEET -l room=attic", USAGE),
    ("check -f OTHER --on-device", PARTIAL),
    ("check -f FLEET --on-device", OK),
    ("get devices", OK),
    ("get devices -l room=attic", OK),
    ("get device/nosuch", NOT_FOUND),
    ("get devices lamp-1 nosuch", PARTIAL),
    ("get nothing", USAGE),
    ("describe device/lamp-1", OK),
    ("describe device/nosuch", NOT_FOUND),
    ("describe lamp-1", USAGE),
    ("set device/lamp-1 color=red", OK),
    ("set device/lamp-1 color=pink", INVALID),
    ("set device/lamp-1 brightness=much", INVALID),
    ("set device/nosuch color=red", NOT_FOUND),
    ("set device/lamp-1 color", USAGE),
    ("set -l room=kitchen color=red --for 15m", OK),
    ("set -l room=kitchen color=pink --for 15m", INVALID),
    ("set -l room=nowhere color=red --for 15m", NOT_FOUND),
    ("set -l room=kitchen color=red", USAGE),
    ("set -l room=kitchen device/lamp-1 color=red --for 15m", USAGE),
    ("unset -l room=kitchen color", OK),
    ("unset -l room=nowhere color", NOT_FOUND),
    ("unset -l room=kitchen", USAGE),
    ("unset device/lamp-1 color", OK),
    ("unset group/nosuch color", NOT_FOUND),
    ("unset device/lamp-1 color=red", USAGE),
    ("delete group/kitchen --yes", OK),
    ("delete schema/lamp --yes", CONFLICT),
    ("delete group/nosuch --yes", NOT_FOUND),
    ("delete group/kitchen", USAGE),
    ("why lamp-1", OK),
    ("why lamp-1 color", OK),
    ("why nosuch", NOT_FOUND),
    ("why lamp-1 nosuch", NOT_FOUND),
    ("why lamp-1 a..b", INVALID),
    ("why Lamp", USAGE),
    ("edit device/lamp-1", OK),
    ("edit device/nosuch", NOT_FOUND),
    ("edit lamp-1", USAGE),
    ("promote lamp-3 color --to group/kitchen", OK),
    ("promote lamp-1 color --to group/kitchen", INVALID),
    ("promote lamp-3 color --to group/nosuch", NOT_FOUND),
    ("get revision/1", OK),
    ("get revision/99", NOT_FOUND),
    ("describe device lamp-1", OK),
    ("promote lamp-3 color --to device/lamp-1", USAGE),
    ("promote lamp-3 color", USAGE),
    ("factor --yes", OK),
    ("factor -l a=b=c", USAGE),
    ("factor -l room=nowhere --yes", OK),
    ("factor lamp-1", USAGE),
    ("document lamp-1", OK),
    ("document bare", NOT_FOUND),
    ("document lamp-1 -o xml", USAGE),
    ("explain lamp.color", OK),
    ("explain nosuch", NOT_FOUND),
    ("explain lamp.nosuch", NOT_FOUND),
    ("explain", USAGE),
    ("secret set wifi/home --from-file VALUE", OK),
    ("secret set wifi/home --from-file ABSENT", NOT_FOUND),
    ("secret set wifi/home --from-file EMPTY", INVALID),
    ("secret set wifi/home --from-file VALUE --json", INVALID),
    ("secret set wifi/home", USAGE),
    ("secret set wifi/home hunter22", USAGE),
    ("secret set WIFI --from-file VALUE", USAGE),
    ("secret list", OK),
    ("secret list -o xml", USAGE),
    ("secret list more", USAGE),
    ("secret delete SECRET --yes", OK),
    ("secret delete nosuch --yes", NOT_FOUND),
    ("secret delete SECRET", USAGE),
    ("history device/lamp-1", OK),
    ("history device/nosuch", NOT_FOUND),
    ("history --limit 0", USAGE),
    ("rollback device/lamp-1 --to 1", OK),
    ("rollback --all --to 1 --yes", OK),
    ("rollback --all --to 99 --yes", NOT_FOUND),
    ("rollback device/lamp-1", USAGE),
    ("rollback --all --to 0", USAGE),
    ("rollback --all --to 1", USAGE),
    ("wait --for=deleted device/nosuch", OK),
    ("wait --for=online device/nosuch", NOT_FOUND),
    ("wait --for=online device/lamp-1 --timeout 1s", TIMED_OUT),
    ("wait device/lamp-1", USAGE),
    ("events", OK),
    ("events --device nosuch", NOT_FOUND),
    ("events --since x", USAGE),
    ("events -o yaml", USAGE),
    ("status", OK),
    ("status -o name", USAGE),
    ("status more", USAGE),
    ("version", OK),
    ("version more", USAGE),
    ("version --nosuch", USAGE),
    ("whoami", OK),
    ("whoami more", USAGE),
    ("whoami --server https://127.0.0.1:9 --socket=", USAGE),
    ("token create -q", OK),
    ("token create --schema nosuch", INVALID),
    ("token create --uses 0", USAGE),
    ("token list", OK),
    ("token list -o xml", USAGE),
    ("token list more", USAGE),
    ("token revoke TOKEN", OK),
    ("token revoke nosuch", NOT_FOUND),
    ("token revoke a/b", USAGE),
    ("operator revoke ada --yes", OK),
    ("operator revoke nosuch --yes", NOT_FOUND),
    ("operator revoke ada", USAGE),
    ("audit list", OK),
    ("audit list --limit 0", USAGE),
    ("audit list -o xml", USAGE),
    ("audit verify", OK),
    ("audit verify -f ABSENT", NOT_FOUND),
    ("audit verify -f OTHER", INVALID),
    ("audit verify --known x", USAGE),
    ("audit verify more", USAGE),
    ("backup", USAGE),
    ("doctor --no-mdns", OK),
    ("doctor now", USAGE),
    ("doctor -o wide", USAGE),
    ("support -o BACKUP --no-mdns", OK),
    ("support -o BAD --no-mdns", CONFLICT),
    ("support BACKUP", USAGE),
    ("backup --verify ABSENT --passphrase-file PASSPHRASE", NOT_FOUND),
    ("backup --verify BAD --passphrase-file PASSPHRASE", INVALID),
    ("backup -o BACKUP --passphrase-file PASSPHRASE", OK),
    ("rescue open", OK),
    ("rescue open --for 0s", USAGE),
    ("rescue open now", USAGE),
    ("rescue close", OK),
    ("rescue close now", USAGE),
    ("rescue close --for 1h", USAGE),
    ("rescue status", OK),
    ("rescue status now", USAGE),
    ("rescue status -o json", USAGE),
    ("rescue list", OK),
    ("rescue list -o xml", USAGE),
    ("rescue list more", USAGE),
    ("rescue take RESCUED --yes", OK),
    ("rescue take nosuch", NOT_FOUND),
    ("rescue take", USAGE),
    ("rescue take --all RESCUED", USAGE),
    ("join open", OK),
    ("join open --for 0s", USAGE),
    ("join open --for", USAGE),
    ("join close", OK),
    ("join close now", USAGE),
    ("join close -o json", USAGE),
    ("join status", OK),
    ("join status now", USAGE),
    ("join status -x", USAGE),
    ("approve CODE --yes", OK),
    ("approve 12345678 --yes", NOT_FOUND),
    ("approve 1234 --yes", USAGE),
    ("device add pico-1 --print ABSENT", OK),
    ("device add pico-1", USAGE),
    ("device add Pico --print ABSENT", USAGE),
    ("device revoke JOINED --yes", OK),
    ("device revoke nosuch --yes", NOT_FOUND),
    ("device revoke JOINED", USAGE),
    ("device replace JOINED --yes -q", OK),
    ("device replace nosuch --yes", NOT_FOUND),
    ("device replace JOINED", USAGE),
    ("device rename lamp-1 porch", OK),
    ("device rename lamp-1 lamp-2", CONFLICT),
    ("device rename nosuch porch", NOT_FOUND),
    ("device rename lamp-1", USAGE),
    ("device schema bare lamp", OK),
    ("device schema bare nosuch", INVALID),
    ("device schema nosuch lamp", NOT_FOUND),
    ("device schema bare", USAGE),
    ("device delete lamp-1 --yes", OK),
    ("device delete nosuch --yes", NOT_FOUND),
    ("device delete lamp-1", USAGE),
    ("retry lamp-1", OK),
    ("retry nosuch", NOT_FOUND),
    ("retry", USAGE),
    ("login URL --token-file TOKENFILE --name bob", OK),
    ("login URL --token-file ABSENT", NOT_FOUND),
    ("login http://x", USAGE),
    ("logout --context home --yes", OK),
    ("logout --context nosuch --yes", NOT_FOUND),
    ("logout --context home", USAGE),
    ("context list", OK),
    ("context list -o wide", USAGE),
    ("context list more", USAGE),
    ("context use home", OK),
    ("context use nosuch", NOT_FOUND),
    ("context use", USAGE),
    ("context rename home casa", OK),
    ("context rename nosuch casa", NOT_FOUND),
    ("context rename home", USAGE),
    ("context delete home --yes", OK),
    ("context delete nosuch --yes", NOT_FOUND),
    ("context delete home", USAGE),
    ("paths", OK),
    ("paths more", USAGE),
    ("paths -o name", USAGE),
    ("completion bash", OK),
    ("completion tcsh", USAGE),
    ("completion", USAGE),
]


def command_of(line: str) -> str:
    """The words of a line that name its command."""
    known = set(commands())
    first, second = [*line.split()[:2], ""][:2]
    return f"{first} {second}" if f"{first} {second}" in known else first


@pytest.fixture
async def person(face: Face, daemon: Service, admin: Admin) -> Face:
    """Somebody on the daemon's machine who is also logged in as ada, in the context home."""
    await admin.apply(
        schema(),
        group("kitchen", "room=kitchen", color="blue"),
        device("lamp-1", labels={"room": "kitchen"}),
        device("lamp-2"),
        device("lamp-3", labels={"room": "kitchen"}, color="blue"),
        device("bare", bound=""),
    )
    token = (await admin.ok("POST", "/v1/tokens", {"kind": "admin"}))["token"]
    await face.ok("login", daemon.url, "--token-file", "-", "--name", "ada", "--context", "home", stdin=token)
    face.environ(HENGE_SOCKET=str(daemon.socket), EDITOR="true", VISUAL="")
    return face


def _written(path: Path, text: str) -> str:
    path.touch(0o600)
    path.write_text(text)
    return str(path)


async def _filled(line: str, daemon: Service, admin: Admin, folder: Path) -> list[str]:
    """The line's words, with what a real daemon must first give out in place of the capitals."""
    files = {
        "FLEET": device("lamp-2"), "OTHER": device("lamp-2", color="red"), "BAD": device("lamp-2", color="pink"),
    }  # fmt: skip
    words = {"ABSENT": str(folder / "absent"), "URL": daemon.url}
    for name, content in files.items():
        words[name] = _written(folder / f"{name}.yaml", yamltext.write({"apiVersion": "henge/v1", **content}))
    words |= {"VALUE": _written(folder / "value", "correct horse\n"), "EMPTY": _written(folder / "empty", "\n")}
    words |= {"PASSPHRASE": _written(folder / "passphrase", "correct horse\n"), "BACKUP": str(folder / "new.backup")}
    if "SECRET" in line:
        words["SECRET"] = (await admin.ok("PUT", "/v1/secrets/wifi/den", {"value": "x"}))["metadata"]["name"]
    if "TOKEN" in line:
        made = await admin.ok("POST", "/v1/tokens", {"kind": "admin"})
        words |= {"TOKEN": made["id"], "TOKENFILE": _written(folder / "token", made["token"])}
    if "CODE" in line:
        await admin.ok("PUT", "/v1/join-window", {"open_s": 600})
        async with daemon.remote(verified=False) as stranger:
            words["CODE"] = (await ask(daemon, stranger, "pico-3")).code
    if "RESCUED" in line:
        await open_window(admin)
        words["RESCUED"] = (await rescued(daemon, "lost", {"color": "red"}, facts={"schema": "lamp"})).name
    if "JOINED" in line:
        words["JOINED"] = (await daemon.join(admin, "joined")).name
    return [words.get(word, word) for word in line.split()]


@pytest.mark.parametrize(("line", "code"), [pytest.param(line, code, id=line) for line, code in TABLE])
async def test_a_command_ends_with_its_code(
    person: Face, daemon: Service, admin: Admin, tmp_path: Path, line: str, code: int
) -> None:
    ran = await person.run(*await _filled(line, daemon, admin, tmp_path))

    assert ran.code == code, ran
    assert "Traceback" not in ran.err
    assert "a fault in hengectl" not in ran.err
    if code not in (OK, NO, PARTIAL, TIMED_OUT):
        assert ran.out == ""
        assert "Error: " in ran.err
        assert len(ran.err.splitlines()) >= 2, "what is wrong, and then what to do"


@pytest.mark.parametrize("command", sorted(set(commands()) - LOCAL))
async def test_a_daemon_that_is_not_there_is_7(
    person: Face, daemon: Service, admin: Admin, tmp_path: Path, command: str
) -> None:
    line = next(line for line, code in TABLE if command_of(line) == command and code == OK)
    words = await _filled(line, daemon, admin, tmp_path)
    ran = await person.run(*words, "--socket", "/absent/admin.sock")

    assert (ran.code, ran.out) == (UNREACHABLE, "")
    assert "cannot reach the daemon at /absent/admin.sock" in ran.err


@pytest.mark.parametrize("command", sorted(set(commands()) - LOCAL))
async def test_a_server_nobody_logged_in_to_is_4(
    person: Face, daemon: Service, admin: Admin, tmp_path: Path, command: str
) -> None:
    line = next(line for line, code in TABLE if command_of(line) == command and code == OK)
    words = await _filled(line, daemon, admin, tmp_path)
    ran = await person.run(*words, "--server", "https://127.0.0.1:9")

    assert (ran.code, ran.out) == (NOT_ALLOWED, "")
    assert "Try: hengectl login https://127.0.0.1:9" in ran.err


def test_the_table_has_a_right_and_two_wrong_uses_of_every_command() -> None:
    right = Counter(command_of(line) for line, code in TABLE if code == OK)
    wrong = Counter(command_of(line) for line, code in TABLE if code != OK)

    assert set(right) == set(wrong) == set(commands())
    assert min(wrong.values()) >= 2
