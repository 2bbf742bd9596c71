"""The unit files, as systemd itself reads them; what they do on a booted system is shown by ``make boottest``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hengd.keyring import CREDENTIAL
from hengd.service import PACKAGED
from tests.deployment.parts import TOP

UNITS = sorted((TOP / "systemd").glob("*.service"))
MOST_EXPOSED = 2.0
"""The scale of systemd-analyze goes to 10; a service without any sandbox has 9.6."""
SAYS_ITSELF = ("Type=", "ExecStart=", "Restart=on-failure", "Restart=always", "RestartSec=", "User=")


def analyze(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("NOT PROVED: systemd-analyze is missing (Debian: apt install systemd)")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(home), "HOME": str(home)}
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    programs = f"{Path(sys.executable).parent}/"
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/henge/bin/", programs))
    whose = "--user" if "user" in unit.name else "--system"
    ran = analyze(whose, "verify", "--recursive-errors=yes", str(copy), home=tmp_path)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_misspelt_line_would_be_seen(tmp_path: Path) -> None:
    copy = tmp_path / "hengd.service"
    text = (TOP / "systemd" / "hengd.service").read_text().replace(PACKAGED, sys.executable)
    copy.write_text(text.replace("NoNewPrivileges=", "NoNewPriviliges="))

    assert analyze("--system", "verify", "--recursive-errors=yes", str(copy), home=tmp_path).returncode != 0


def test_the_daemons_sandbox_is_tight(tmp_path: Path) -> None:
    unit = TOP / "systemd" / "hengd.service"
    ran = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:g}", str(unit), home=tmp_path)

    assert ran.returncode == 0, ran.stdout[-300:]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_line_of_the_service_has_its_reason_above_it(unit: Path) -> None:
    service = unit.read_text().partition("[Service]\n")[2].partition("\n[Install]")[0].strip().splitlines()
    without, told = [], False
    for line in service:
        told = line.startswith("#") or (told and bool(line))
        if line and not told and not line.startswith(SAYS_ITSELF):
            without.append(line)

    assert without == []


@pytest.mark.parametrize(
    ("unit", "document"), [("hengd.service", "docs/operations.md"), ("henge-agent.service", "agent/README.md")]
)
def test_the_document_shows_the_unit_as_it_is(unit: str, document: str) -> None:
    assert f"```ini\n{(TOP / 'systemd' / unit).read_text().strip()}\n```" in (TOP / document).read_text("utf-8")


def test_units_and_code_name_the_same_things() -> None:
    units = {unit.name: unit.read_text() for unit in UNITS}

    assert f"ExecStart={PACKAGED}\n" in units["hengd.service"]
    assert f"ExecStart={PACKAGED}\n" in units["hengd-user.service"]
    assert f"LoadCredentialEncrypted={CREDENTIAL}\n" in units["hengd.service"]
    assert re.search(r"^u henge ", (TOP / "systemd" / "henge.sysusers").read_text(), re.MULTILINE)
