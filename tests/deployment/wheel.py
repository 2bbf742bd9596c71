"""``make wheeltest``: the wheel of this tree, installed by pipx as a person would, does the work and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployment.parts import TOP, sh
from tests.system.programs import PATIENCE_S, Admin

PIPX = TOP / ".venv" / "bin" / "pipx"
PYTHON = TOP / ".venv" / "bin" / "python"
PACKAGES = {"henge_protocol", "hengd", "hengectl", "henge_agent", "henge_micro"}


@dataclass(frozen=True)
class Installed:
    """What pipx made of the wheel: the folder of its commands, and how to call pipx again."""

    wheel: Path
    programs: Path
    environment: dict[str, str]

    def run(self, *command: str, fails: bool = False) -> str:
        done = subprocess.run(
            [self.programs / command[0], *command[1:]],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{command}: {done.returncode} {done.stderr}"
        return done.stdout + done.stderr


def build(folder: Path) -> Path:
    """The wheel as ``make dist`` builds it, from a copy of what git knows."""
    source = folder / "source"
    source.mkdir()
    names = sh("git", "ls-files", "--cached", "--others", "--exclude-standard")
    sh("tar", "-C", TOP, "-cf", folder / "source.tar", "--files-from=-", stdin=names)
    sh("tar", "-C", source, "-xf", folder / "source.tar")
    sh("env", f"PYTHONPATH={source}:{source / 'agent'}", PYTHON, source / "contrib/manpages.py", source / "man")
    sh(PYTHON, "-m", "pip", "-q", "wheel", "--no-deps", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("hengd-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build(folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HENGE_", "PYTHON"))}
    environment |= {
        "PIPX_HOME": str(folder / "pipx"), "PIPX_BIN_DIR": str(folder / "bin"), "PIPX_MAN_DIR": str(folder / "man"),
        "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder),
    }  # fmt: skip
    pipx = ["env", *(f"{key}={environment[key]}" for key in environment if key.startswith("PIPX")), PIPX]
    sh(*pipx, "install", "--python", PYTHON.resolve(), "--pip-args", f"-c {TOP / '.ci/constraints.txt'}", wheel)
    yield Installed(wheel, folder / "bin", environment)
    sh(*pipx, "uninstall", "hengd")
    assert [*(folder / "bin").iterdir()] == []
    assert not (folder / "pipx/venvs/hengd").exists()


def test_the_wheel_holds_the_programs_their_files_and_nothing_of_the_tests(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name and ".data" not in name}

    assert tops == PACKAGES
    assert [name for name in names if "test" in name.lower() or name.endswith((".pyc", ".key"))] == []
    assert {f"hengd/units/{path.name}" for path in (TOP / "systemd").iterdir()} <= {*names}
    assert any(name.endswith("share/man/man1/hengectl-apply.1") for name in names)


def test_pipx_makes_every_command(installed: Installed) -> None:
    programs = {one.name for one in installed.programs.iterdir()}

    assert programs == {"hengd", "hengectl", "henge-agent"}
    assert len({installed.run(name, "--version").split()[-1] for name in programs}) == 1


def test_the_daemon_serves_and_every_schema_of_the_examples_is_taken(installed: Installed, tmp_path: Path) -> None:
    socket, log = tmp_path / "admin.sock", tmp_path / "hengd.log"
    command = [installed.programs / "hengd", "run", "--data-dir", tmp_path / "data", "--socket", socket, "--no-mdns"]
    command += ["--listen", "127.0.0.1:0", "--local", "127.0.0.1:0"]
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output, env=installed.environment)
    try:
        while not socket.exists():
            assert daemon.poll() is None, log.read_text()
        hengectl = ("hengectl", "--socket", str(socket))
        installed.run(*hengectl, "apply", "-f", str(TOP / "examples/homelab"))
        assert len(installed.run(*hengectl, "get", "devices", "-o", "name").split()) == 12
        assert "no-such" in installed.run(*hengectl, "document", "no-such", fails=True)
        with closing(Admin(socket)) as admin:
            assert admin.call("GET", "/v1/openapi.json")["openapi"].startswith("3.1")
    finally:
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(PATIENCE_S)

    assert code == 0, log.read_text()


def test_a_board_can_be_prepared_from_what_is_installed(installed: Installed, tmp_path: Path) -> None:
    """The client for boards travels in the wheel, beside the programs."""
    (place,) = (Path(installed.environment["PIPX_HOME"]) / "venvs/hengd/lib").glob("python*/site-packages/henge_micro")

    assert {"client.py", "applier.py", "wire.py"} <= {one.name for one in place.iterdir()}
