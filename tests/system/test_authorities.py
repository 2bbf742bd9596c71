"""Both authorities are replaced under a running fleet, by the real programs, and nobody is touched by hand."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from henge_agent.state import read_membership
from tests.service import device, schema
from tests.system.programs import PROGRAMS, Daemon, output_of, running, until

pytestmark = pytest.mark.system
BEHIND = 75


class House:
    """A daemon, an operator on another machine, and the commands of both."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self._environ = {**os.environ, "HENGE_SOCKET": str(daemon.socket)}
        home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "USER": "ada"}
        self._remote = {key: value for key, value in os.environ.items() if not key.startswith("HENGE_")} | home

    def care(self, *words: str, code: int = 0) -> str:
        """``hengd ca ...``; what it says, on both streams."""
        return self._run(["hengd", "ca", *words], self._environ, code)

    def hengectl(self, *words: str, stdin: str = "") -> str:
        """The operator's command line, over TLS."""
        return self._run(["hengectl", *words], self._remote, 0, stdin)

    def state(self, which: str = "server") -> dict[str, Any]:
        """Where a rotation stands."""
        return dict(self.daemon.admin.call("GET", "/v1/authorities")[which])

    def behind(self, which: str = "server") -> list[str]:
        """Who has not followed."""
        return [f"{one['kind']}/{one['name']}" for one in self.state(which)["follow"]["behind"]]

    def paint(self, color: str) -> None:
        """The operator changes a value, and the device has it."""
        self.hengectl("set", "device/lamp-1", f"color={color}", "--wait", "--timeout", "20s")
        assert json.loads(output_of(self.daemon.folder / "lamp-1").read_text())["color"] == color

    def _run(self, command: list[str], environ: dict[str, str], code: int, stdin: str = "") -> str:
        done = subprocess.run(
            [str(PROGRAMS / command[0]), *command[1:]], input=stdin, env=environ, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with running(tmp_path) as daemon:
        admin = daemon.admin
        admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1"), device("lamp-2")]})
        found = House(daemon, tmp_path / "ada")
        token = admin.call("POST", "/v1/tokens", {"kind": "admin", "name": "ada"})["token"]
        found.hengectl("login", f"https://127.0.0.1:{daemon.port}", "--token-file", "-", stdin=token)
        yield found


def authorities(state: Path) -> int:
    """How many server authorities a device trusts."""
    membership = read_membership(state)
    assert membership is not None
    return len(membership.server_ca_ders)


def restarted(house: House) -> None:
    """Every connection is made anew, by what is in force."""
    assert house.daemon.stop() == 0
    house.daemon.start()


def test_both_authorities_are_replaced_and_nobody_is_touched(house: House) -> None:
    daemon, care = house.daemon, house.care
    lamp, drawer = daemon.join("lamp-1"), daemon.join("lamp-2")
    with daemon.agent(lamp) as agent:
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        house.paint("red")
        daemon.admin.call("POST", "/v1/tokens", {"name": "lamp-9"})

        assert "is made" in care("rotate", "begin", "--within", "1s")
        until(lambda: "device/lamp-1" not in house.behind(), agent)
        assert authorities(lamp) == 2
        assert "operator/ada" in house.behind()
        house.paint("green")
        assert house.behind() == ["device/lamp-2"]

        refused = care("rotate", "switch", code=BEHIND)
        assert ("device/lamp-2" in refused, "device/lamp-1" in refused, "--leave-behind" in refused) == (
            True, False, True,
        )  # fmt: skip
        switched = care("rotate", "switch", "--leave-behind")
        assert "device/lamp-2" in switched
        assert "hengectl device replace NAME" in switched
        assert "1 tokens that are not used yet" in switched
        assert "had been switched before" in care("rotate", "switch")
        house.paint("blue")
        restarted(house)
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        house.paint("red")

        assert "given up" in care("rotate", "finish")
        until(lambda: authorities(lamp) == 1, agent)
        house.paint("green")
        assert house.state()["step"] == "resting"
        assert house.behind() == ["device/lamp-2"]

        care("rotate", "begin", "--client", "--within", "1s")
        until(lambda: "device/lamp-1" not in house.behind("client"), agent)
        house.paint("blue")
        assert house.behind("client") == ["device/lamp-2"]
        assert "device/lamp-2" in care("rotate", "finish", "--client", code=BEHIND)
        assert "device/lamp-2" in care("rotate", "finish", "--client", "--leave-behind")
        restarted(house)
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        house.paint("red")
        assert agent.process.poll() is None

    with daemon.agent(drawer) as left:
        until(lambda: "replaced its authority while this device was off" in left.log.read_text(), left)
    token = house.hengectl("device", "replace", "lamp-2", "--yes", "-q").split()[0]
    again = daemon.join("lamp-2", token=token, state_name="lamp-2-again")
    with daemon.agent(again):
        daemon.admin.until("lamp-2", config="in-sync", connection="online")
    assert house.behind() == house.behind("client") == []
