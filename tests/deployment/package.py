"""``make debtest``: the Debian package in a fresh Debian that boots."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.parts import TOP, Machine, need, wheels

SOURCES = ("systemd", "contrib", ".ci", "henge_protocol/__init__.py", "LICENSE")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in one Debian, from wheels, without a network."""
    need("systemd-nspawn", "mmdebstrap", "nsenter")
    out = tmp_path_factory.mktemp("deb")
    with Machine.made() as builder:
        place = builder.root / "src"
        shutil.copytree(wheels(), builder.root / "wheels")
        for name in SOURCES:
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (TOP / name).is_dir() else shutil.copy)(TOP / name, target)
        builder.chroot("env", "WHEELS=/wheels", "WHEEL=hengd", "/src/contrib/deb.sh", "/out")
        (made,) = (builder.root / "out").glob("*.deb")
        return Path(shutil.copy(made, out))


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Machine]:
    """Another Debian, which has never seen henge, up and running."""
    with Machine.made() as box:
        shutil.copy(package, box.root / "hengd.deb")
        with box.booted():
            yield box


def test_installing_starts_a_daemon_that_serves(machine: Machine) -> None:
    before = leftovers(machine)
    machine.run("dpkg", "-i", "/hengd.deb")

    assert before == []
    assert machine.run("systemctl", "is-active", "hengd").strip() == "active"
    assert "revision" in machine.run("hengectl", "status")
    assert machine.run("systemctl", "is-enabled", "hengd", "henge-agent", check=False).split() == [
        "enabled",
        "disabled",
    ]


def test_installing_again_restarts_it_with_its_data(machine: Machine) -> None:
    made = (
        "{apiVersion: henge/v1, kind: Schema, metadata: {name: lamp}, spec: {schema: {type: object, properties: {}}}}"
    )
    machine.run("hengectl", "apply", "-f", "-", stdin=made)
    before = machine.run("systemctl", "show", "hengd", "-P", "MainPID")
    machine.run("dpkg", "-i", "/hengd.deb")

    assert machine.run("systemctl", "show", "hengd", "-P", "MainPID") != before
    assert "lamp" in machine.run("hengectl", "get", "schemas")


def test_removing_leaves_settings_and_data(machine: Machine) -> None:
    machine.run("mkdir", "-p", "/etc/henge")
    machine.run("tee", "/etc/henge/hengd.toml", stdin="[daemon]\n")
    machine.run("dpkg", "-r", "hengd")

    assert machine.run("systemctl", "show", "hengd", "-P", "LoadState").strip() == "not-found"
    assert machine.run("cat", "/etc/henge/hengd.toml") == "[daemon]\n"
    assert "data" in machine.run("ls", "/var/lib/henge")


def test_purging_leaves_the_data_alone_and_says_so(machine: Machine) -> None:
    said = machine.run("dpkg", "-P", "hengd")

    assert "/var/lib/henge stays" in said
    assert leftovers(machine) == ["/var/lib/henge"]


def leftovers(machine: Machine) -> list[str]:
    """Whatever in the system bears our name."""
    places = ["/etc", "/opt", "/run", "/usr", "/var/lib"]
    elsewhere = ["-not", "-path", "/var/lib/henge/*", "-not", "-path", "/var/lib/dpkg/*"]
    found = machine.run("find", *places, "-name", "heng[de]*", *elsewhere, check=False)
    return [line for line in found.splitlines() if not line.startswith("find: ")]  # no /opt: dpkg takes it along
