"""What the long proofs of deployment are made of: a Debian, the project's wheels, and a machine that really boots.

Everything comes from Debian's mirror and the package index once and is kept in ``.cache/``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

TOP: Final = Path(__file__).parent.parent.parent
CACHE: Final = TOP / ".cache"
SUITE: Final = os.environ.get("HENGE_DEBIAN", "bookworm")
"""Which Debian: ``HENGE_DEBIAN=trixie make boottest``."""
PYTHON: Final = {"bookworm": "3.11", "trixie": "3.13"}[SUITE]
WHEELS: Final = CACHE / f"wheels-{SUITE}"
PACKAGES: Final = (
    "systemd,systemd-sysv,dbus,python3,python3-venv,python3-pip,iproute2,procps,libnss-systemd,ca-certificates,acl"
)
PATIENCE_S: Final = 60.0
NSPAWN: Final = ("systemd-nspawn", "-q", "--register=no", "--keep-unit")
STEP_S: Final = 0.1
"""Between two looks at a machine from outside; how long it takes decides nothing."""


def need(*programs: str, root: bool = True) -> None:
    """Skip the proof, saying why, where it cannot be had."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"NOT PROVED: this needs {', '.join(missing)} (Debian: apt install {' '.join(missing)})")
    if root and os.geteuid() != 0:
        pytest.skip("NOT PROVED: this needs root")


def sh(*command: str | Path, check: bool = True, stdin: str = "", cwd: Path = TOP) -> str:
    """Run a command to its end; what it printed, both streams."""
    done = subprocess.run(
        [str(part) for part in command], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, cwd=cwd,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def debian() -> Path:
    """A minimal Debian with systemd and Python, as a tar file."""
    found = CACHE / f"debian-{SUITE}.tar"
    if not found.exists():
        CACHE.mkdir(exist_ok=True)
        fresh = found.with_suffix(".new")
        sh("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "--format=tar", SUITE, fresh)
        fresh.rename(found)
    return found


def wheels() -> Path:
    """A folder with the wheel of this tree and of all that it needs, for Debian's Python."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    for old in WHEELS.glob("hengd-*.whl"):
        old.unlink()
    pip = (TOP / ".venv/bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    shutil.rmtree(TOP / "build", ignore_errors=True)  # what is deleted from the tree must not come from there
    sh(*pip, "wheel", "--no-deps", "--wheel-dir", WHEELS, ".")
    shutil.rmtree(TOP / "build", ignore_errors=True)
    (wheel,) = WHEELS.glob("hengd-*.whl")
    sh(
        *pip, "download", "--only-binary=:all:", f"--python-version={PYTHON}", "--find-links", WHEELS,
        "-c", ".ci/constraints.txt", "-d", WHEELS, wheel,
    )  # fmt: skip
    return WHEELS


class Machine:
    """A Debian in a folder that systemd boots in a container of its own (systemd-nspawn), without a network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._leader = 0

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Machine]:
        """A fresh Debian in a folder that goes afterwards."""
        with tempfile.TemporaryDirectory(prefix="henge-machine-") as folder:
            machine = cls(Path(folder) / "root")
            machine._unpack()
            yield machine

    def _unpack(self) -> None:
        self.root.mkdir()
        sh("tar", "-C", self.root, "--exclude=./dev/*", "-xf", debian())
        self.root.joinpath("etc/machine-id").write_text("")

    def install(self) -> None:
        """Put this tree's wheel into a virtual environment at /opt/henge, as people do."""
        place = self.root / "wheels"
        shutil.copytree(wheels(), place)
        self.chroot("python3", "-m", "venv", "/opt/henge")
        self.chroot("/opt/henge/bin/pip", "install", "-q", "--no-index", "--find-links", "/wheels", "hengd")
        shutil.rmtree(place)

    def chroot(self, *command: str, check: bool = True) -> str:
        """Run a command in the folder while it is not booted."""
        return sh(*NSPAWN, "-D", self.root, "--pipe", *command, check=check)

    @contextmanager
    def booted(self) -> Iterator[None]:
        """The machine is up inside of the block, and off after it."""
        log = self.root.with_suffix(".console")
        with log.open("w") as console:
            process = subprocess.Popen(
                [*NSPAWN, "--private-network", "-D", str(self.root), "--boot", "--console=read-only"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        try:
            self._leader = self._find_leader(process)
            self.until(self._is_up)
            yield
            self.run("systemctl", "poweroff")
            assert process.wait(PATIENCE_S) == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE_S)

    def run(self, *command: str, check: bool = True, stdin: str = "") -> str:
        """Run a command in the booted machine."""
        inside = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        clean = ["env", "-i", "PATH=/opt/henge/bin:/usr/bin:/usr/sbin", "HOME=/root"]
        return sh(*inside, *clean, *command, check=check, stdin=stdin)

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def until(self, true: Callable[[], bool], why: str = "") -> None:
        """Wait until a question is answered with yes."""
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end, why or "waited in vain"
            time.sleep(STEP_S)

    def _find_leader(self, process: subprocess.Popen[bytes]) -> int:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        found: list[int] = []

        def looked() -> bool:
            assert process.poll() is None, "systemd-nspawn ended"
            found[:] = [int(child) for child in children.read_text().split() if self._is_systemd(child)]
            return bool(found)

        self.until(looked, "no machine came up")
        return found[0]

    @staticmethod
    def _is_systemd(pid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"
        except FileNotFoundError:
            return False
