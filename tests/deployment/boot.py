"""``make boottest``: the units on a system that really boots; start, push, reload, hang, restart, stop, uninstall.

One machine, one story: each test goes on where the one before it ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.deployment.parts import TOP, Machine, need

HANG = """
import os, re, threading, time
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.05)
    os.unlink(path)
    re.match("(a+)+$", "a" * 99 + "b")  # for longer than anybody waits, and no other thread has a turn
if "HANG_WHEN" in os.environ:
    threading.Thread(target=wait, args=(os.environ["HANG_WHEN"],), daemon=True).start()
"""
FLEET = """
{apiVersion: henge/v1, kind: Schema, metadata: {name: lamp}, spec: {schema: {
  type: object, additionalProperties: false, properties: {
  color: {type: string, default: green}, key: {type: string, writeOnly: true}}}}}
"""
TRIAL = "[Service]\nWatchdogSec=4\nEnvironment=HANG_WHEN=/run/henge/hang\n"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A Debian with this tree's wheel, up and running."""
    need("systemd-nspawn", "mmdebstrap", "nsenter")
    with Machine.made() as box:
        box.install()
        make_ready(box)
        with box.booted():
            yield box


def make_ready(box: Machine) -> None:
    """A shorter watchdog, and a way to hang the daemon's loop."""
    (packages,) = box.root.glob("opt/henge/lib/python3*/site-packages")
    packages.joinpath("hang_on_demand.py").write_text(HANG)
    packages.joinpath("hang_on_demand.pth").write_text("import hang_on_demand\n")
    trial = box.root / "etc/systemd/system/hengd.service.d/trial.conf"
    trial.parent.mkdir(parents=True)
    trial.write_text(TRIAL)


def shown(machine: Machine, unit: str, *names: str) -> list[str]:
    """Properties of a unit."""
    return [machine.run("systemctl", "show", unit, "-P", name).strip() for name in names]


def device(machine: Machine) -> dict[str, object]:
    """The one device as the daemon sees it."""
    return dict(json.loads(machine.run("hengectl", "get", "device/lamp-1", "-o", "json"))["status"])


def journal(machine: Machine, unit: str = "hengd") -> str:
    return machine.run("journalctl", "-b", "-u", unit, "-o", "cat", "--no-pager")


def test_hengd_service_install_makes_a_daemon_that_serves(machine: Machine) -> None:
    said = machine.run("hengd", "service", "install")
    status = machine.run("hengectl", "status")

    assert "hengd runs now and at every boot" in said
    assert shown(machine, "hengd", "ActiveState", "User", "NRestarts") == ["active", "henge", "0"]
    assert shown(machine, "hengd", "StatusText")[0].startswith("serving")
    assert machine.run("systemctl", "is-enabled", "hengd").strip() == "enabled"
    assert "revision" in status


def test_it_runs_without_rights_and_sees_a_read_only_system(machine: Machine) -> None:
    (pid,) = shown(machine, "hengd", "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    mounts = [line.split()[4:6] for line in machine.run("cat", f"/proc/{pid}/mountinfo").splitlines()]

    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert [options.split(",")[0] for place, options in mounts if place == "/"][-1] == "ro"
    assert machine.run("stat", "-c", "%a %U", "/var/lib/henge", "/run/henge", "/run/henge/admin.sock").split() == [
        "700", "henge", "750", "henge", "660", "henge",
    ]  # fmt: skip


def test_members_of_the_group_administer_and_others_do_not(machine: Machine) -> None:
    machine.run("useradd", "ada")
    machine.run("useradd", "-G", "henge", "bob")
    refused, taken = (
        machine.run("runuser", "-l", who, "-c", "/opt/henge/bin/hengectl status", check=False) for who in ("ada", "bob")
    )

    assert "Error:" in refused
    assert "revision" in taken


def test_a_change_is_pushed_to_the_agents_service(machine: Machine) -> None:
    machine.run("hengectl", "apply", "-f", "-", stdin=FLEET)
    token = machine.run("hengectl", "token", "create", "--name", "lamp-1", "--schema", "lamp", "-q").strip()
    join = "henge-agent join https://127.0.0.1:4364 --token-file - --name lamp-1 --state-dir /var/lib/henge-agent"
    machine.run(*join.split(), stdin=token + "\n")
    machine.run("mkdir", "-p", "/etc/henge")
    options = "AGENT_OPTIONS=--output /etc/lamp.json --on-change 'touch /run/changed && echo changed'\n"
    machine.run("tee", "/etc/henge/agent.env", stdin=options)
    unit = (TOP / "systemd/henge-agent.service").read_text()
    machine.root.joinpath("etc/systemd/system/henge-agent.service").write_text(unit)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", "henge-agent")
    machine.run("hengectl", "set", "device/lamp-1", "color=red", "--wait", "--timeout", "60s")

    assert json.loads(machine.run("cat", "/etc/lamp.json")) == {"color": "red"}
    assert machine.run("stat", "/run/changed")
    assert shown(machine, "henge-agent", "ActiveState", "NRestarts") == ["active", "0"]


def test_a_reload_reads_the_settings_again_and_says_what_waits(machine: Machine) -> None:
    machine.run("tee", "/etc/henge/hengd.toml", stdin='[daemon]\nlog_level = "debug"\n[join]\nmax_pending = 9\n')
    machine.run("systemctl", "reload", "hengd")
    machine.until(lambda: "a restart is needed for join.max_pending" in journal(machine), journal(machine))
    machine.run("tee", "/etc/henge/hengd.toml", stdin='[daemon]\nlog_level = "loud"\n')
    machine.run("systemctl", "reload", "hengd")
    machine.until(lambda: "settings stay as they were" in journal(machine), journal(machine))
    machine.run("rm", "/etc/henge/hengd.toml")

    assert shown(machine, "hengd", "ActiveState", "NRestarts") == ["active", "0"]


def test_a_loop_that_hangs_is_killed_and_started_again_with_its_data(machine: Machine) -> None:
    (before,) = shown(machine, "hengd", "MainPID")
    machine.run("touch", "/run/henge/hang")
    machine.until(lambda: shown(machine, "hengd", "NRestarts") == ["1"], journal(machine))
    machine.until(lambda: shown(machine, "hengd", "ActiveState") == ["active"], journal(machine))
    (after,) = shown(machine, "hengd", "MainPID")

    assert before != after
    assert "Watchdog timeout" in journal(machine)
    machine.until(lambda: device(machine)["connection"] == "online", str(device(machine)))
    assert device(machine)["config"] == "in-sync"


def test_the_key_of_the_secrets_may_be_a_credential(machine: Machine) -> None:
    machine.run("hengectl", "secret", "set", "wifi/home", "--from-file", "-", stdin="hush-hush")
    machine.run("mkdir", "-p", "-m", "700", "/etc/credstore.encrypted")
    key, credential = "/var/lib/henge/keys/secrets.key", "/etc/credstore.encrypted/henge-secret-key"
    machine.run("systemd-creds", "encrypt", "--name=henge-secret-key", key, credential)
    machine.run("rm", key)
    machine.run("systemctl", "restart", "hengd")
    machine.until(lambda: device(machine)["connection"] == "online", journal(machine))
    machine.run("hengectl", "set", "device/lamp-1", 'key={"$secret": "wifi/home"}', "--wait", "--timeout", "60s")

    assert json.loads(machine.run("cat", "/etc/lamp.json")) == {"color": "red", "key": "hush-hush"}
    assert machine.run("ls", "/var/lib/henge/keys") == ""


def test_a_restart_keeps_the_data(machine: Machine) -> None:
    before = json.loads(machine.run("hengectl", "get", "revisions", "-o", "json"))["items"]
    machine.run("systemctl", "restart", "hengd")

    assert json.loads(machine.run("hengectl", "get", "revisions", "-o", "json"))["items"] == before
    machine.until(lambda: device(machine)["connection"] == "online")


def test_a_stop_is_clean(machine: Machine) -> None:
    machine.run("systemctl", "stop", "hengd")

    assert shown(machine, "hengd", "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]
    assert machine.run("ls", "/run/henge", check=False).startswith("ls: cannot access")


def test_uninstalling_leaves_data_and_user(machine: Machine) -> None:
    said = machine.run("hengd", "service", "uninstall")

    assert "The data stays" in said
    assert machine.run("stat", "-c", "%U", "/var/lib/henge/data").strip() == "henge"
    assert not machine.root.joinpath("etc/systemd/system/hengd.service").exists()
