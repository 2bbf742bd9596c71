"""``hengd service``: which files it writes, whom it tells, what it refuses. On a booted system: ``make boottest``."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hengd import service
from hengd.service import MADE_BY, install, of_system, of_user, program_of, uninstall
from henge_protocol.errors import HengeError
from tests.hengd.test_cli import environment, hengd

PROGRAM = "/srv/henge/bin/hengd"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs named like systemd's write down what they were told."""
    return fake_systemd(tmp_path, monkeypatch)


def fake_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ends: int = 0) -> Path:
    programs, told = tmp_path / "programs", tmp_path / "told"
    programs.mkdir(exist_ok=True)
    for name in ("systemctl", "systemd-sysusers"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {told}\necho "Unit is masked." >&2\nexit {ends}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    told.touch()
    return told


def test_the_systems_service_has_a_user_and_starts_now_and_at_boot(tmp_path: Path, told: Path) -> None:
    place = of_system(tmp_path)
    install(place, PROGRAM)
    unit = place.unit.read_text()

    assert unit.startswith(MADE_BY)
    assert f"ExecStart={PROGRAM}\n" in unit
    assert "User=henge\n" in unit
    assert stat.S_IMODE(place.unit.stat().st_mode) == 0o644
    assert place.sysusers is not None
    assert "\nu henge - " in place.sysusers.read_text()
    assert told.read_text().splitlines() == [
        f"systemd-sysusers {place.sysusers}", "systemctl daemon-reload", "systemctl enable hengd.service",
        "systemctl restart hengd.service",
    ]  # fmt: skip


def test_installing_again_brings_the_unit_up_to_date(tmp_path: Path, told: Path) -> None:
    place = of_system(tmp_path)
    install(place, "/old/hengd")
    install(place, PROGRAM)

    assert "/old/" not in place.unit.read_text()


def test_a_unit_of_somebody_else_is_left_alone(tmp_path: Path, told: Path) -> None:
    place = of_system(tmp_path)
    place.unit.parent.mkdir(parents=True)
    place.unit.write_text("[Service]\nExecStart=/usr/bin/hengd --mine\n")
    for act in (lambda: install(place, PROGRAM), lambda: uninstall(place)):
        with pytest.raises(HengeError) as refused:
            act()
        assert refused.value.code == "exists"

    assert place.unit.read_text().endswith("--mine\n")
    assert told.read_text() == ""


def test_users_of_somebody_else_are_left_alone(tmp_path: Path, told: Path) -> None:
    place = of_system(tmp_path)
    assert place.sysusers is not None
    place.sysusers.parent.mkdir(parents=True)
    place.sysusers.write_text("u henge 990\n")
    with pytest.raises(HengeError) as refused:
        install(place, PROGRAM)
    assert (refused.value.code, str(place.sysusers) in refused.value.message) == ("exists", True)
    assert (told.read_text(), place.unit.exists()) == ("", False)

    place.unit.parent.mkdir(parents=True)
    place.unit.write_text(MADE_BY)
    uninstall(place)
    assert place.sysusers.read_text() == "u henge 990\n"
    assert not place.unit.exists()


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", ["two words", "50%n", "$HOME; rm"])
def test_systemd_finds_a_program_whose_path_has_signs_of_its_language(tmp_path: Path, name: str) -> None:
    program = tmp_path / name / "hengd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "hengd.service"
    unit.write_text(f"[Service]\nExecStart={program_of(str(program.parent / 'python3'))}\n")
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_path_with_signs_of_systemds_language_is_one_word_of_the_unit() -> None:
    assert program_of("/no where/100%/python3") == '"/no where/100%%/python3" -m hengd'
    assert program_of("/usr/bin/python3") == "/usr/bin/python3 -m hengd"


def test_uninstalling_removes_what_was_written_and_nothing_else(tmp_path: Path, told: Path) -> None:
    place = of_system(tmp_path)
    data = tmp_path / "var/lib/henge/data"
    data.mkdir(parents=True)
    install(place, PROGRAM)
    told.write_text("")
    uninstall(place)

    assert [path for path in tmp_path.joinpath("etc").rglob("*") if path.is_file()] == []
    assert data.exists()
    assert told.read_text().splitlines() == ["systemctl disable --now hengd.service", "systemctl daemon-reload"]


def test_what_is_not_installed_cannot_be_uninstalled(tmp_path: Path, told: Path) -> None:
    with pytest.raises(HengeError, match="not installed"):
        uninstall(of_system(tmp_path))


def test_systemds_own_words_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_systemd(tmp_path, monkeypatch, ends=1)
    with pytest.raises(HengeError, match="failed: Unit is masked") as refused:
        install(of_user(tmp_path), PROGRAM)

    assert refused.value.code == "service_failed"


def test_without_the_users_systemd_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_systemd(tmp_path, monkeypatch, ends=1)
    place = of_user(tmp_path)
    with pytest.raises(HengeError) as refused:
        install(place, PROGRAM)

    assert not place.unit.exists()
    assert "loginctl enable-linger" in refused.value.cure


def test_what_systemd_does_not_answer_for_is_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = of_user(tmp_path)
    fake_systemd(tmp_path, monkeypatch)
    install(place, PROGRAM)
    fake_systemd(tmp_path, monkeypatch, ends=1)
    with pytest.raises(HengeError, match="failed: Unit is masked") as refused:
        uninstall(place)

    assert (refused.value.code, place.unit.exists()) == ("service_failed", False)


def test_a_users_own_service_needs_neither_root_nor_a_user_of_its_own(home: Path, told: Path) -> None:
    installed = hengd(home, "service", "install", "--user", PATH=os.environ["PATH"])
    unit = home / "config/systemd/user/hengd.service"
    text = unit.read_text()
    removed = hengd(home, "service", "uninstall", "--user", PATH=os.environ["PATH"])

    assert (installed.returncode, removed.returncode) == (0, 0), installed.stderr + removed.stderr
    assert f"ExecStart={program_of(sys.executable)}\n" in text
    assert "User=" not in text
    assert not unit.exists()
    assert told.read_text().splitlines()[0] == "systemctl --user daemon-reload"


def test_uninstalling_twice_is_74_and_says_why(home: Path, told: Path) -> None:
    ran = hengd(home, "service", "uninstall", "--user", PATH=os.environ["PATH"])

    assert (ran.returncode, "not installed" in ran.stderr) == (74, True)


@pytest.mark.root
def test_where_systemd_does_not_run_the_system_has_no_service(home: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    ran = hengd(home, "service", "install")

    assert (ran.returncode, ran.stderr.splitlines()[0]) == (69, "Error: this system is not run by systemd")


def test_only_root_makes_a_service_of_the_system(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.os, "getuid", lambda: 1000)
    with pytest.raises(HengeError, match="root's to make"):
        service.install_command.callback(is_user=False)  # type: ignore[misc]


@pytest.mark.parametrize("executable", ["/nowhere/python3", sys.executable])
def test_the_program_is_the_command_beside_its_python_or_the_module(executable: str) -> None:
    program = program_of(executable).split()

    assert program in ([executable, "-m", "hengd"], [str(Path(executable).parent / "hengd")])
    if executable == sys.executable:
        ran = subprocess.run([*program, "--version"], env=environment(Path("/")), capture_output=True, check=False)
        assert ran.returncode == 0
