from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FIRST_RUN = Path(__file__).resolve().parent.parent / "contrib" / "first_run.py"


@pytest.mark.system
def test_the_demo_joins_anew_when_the_daemon_no_longer_knows_its_device(tmp_path: Path) -> None:
    command = [sys.executable, str(FIRST_RUN), "--once", "--folder", str(tmp_path)]
    command += ["--listen", "127.0.0.1:0", "--local", "127.0.0.1:0"]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(tmp_path / "data")
    again = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "--replace" not in first.stdout
    assert "--replace" in again.stdout
    assert "-m 'the sample fleet'" in first.stdout


def test_what_starts_it_again_has_the_same_arguments() -> None:
    spec = importlib.util.spec_from_file_location("first_run", FIRST_RUN)
    assert spec is not None
    assert spec.loader is not None
    first_run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(first_run)

    assert first_run.same_again(["--stay"]) == "make run"
    assert first_run.same_again(["--stay", "--folder", "/tmp/my demo"]) == "make run ARGS=\"--folder '/tmp/my demo'\""
