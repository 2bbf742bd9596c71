"""``-k DIR``: what kustomize makes of a folder is applied.

Most of these run a stand-in: a program of a few lines that is called and answers as the real ones document it
(``kustomize build DIR``, ``kubectl kustomize DIR``: YAML on standard output, one line on standard error and 1 when it
fails). Where a real kustomize or kubectl is on the PATH, the last tests run that, too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from henge_protocol.errors import HengeError, Invalid, TooLarge
from hengectl import kustomize, manifest
from hengectl.refusal import INVALID, OK, USAGE
from tests.hengectl.conftest import Face
from tests.service import Admin, Service, schema

LAMP = """apiVersion: henge/v1
kind: Device
metadata:
  name: lamp-1
spec:
  schema: lamp
  values:
    color: red
"""
KLOG = (
    'E1126 13:18:49.987895    7883 run.go:72] "command failed" err="invalid Kustomization: unknown field \\"bogus\\""'
)

Install = Callable[..., Path]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Puts a stand-in on the PATH, and takes everything else off it; it notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def made(name: str, *, output: str = "", error: str = "", code: int = 0, more: str = "") -> Path:
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport sys, pathlib\n"
            f"pathlib.Path({str(tmp_path / 'called')!r}).write_text(' '.join(sys.argv[1:]))\n"
            f"{more}\nsys.stdout.write({output!r})\nsys.stderr.write({error!r})\nsys.exit({code})\n"
        )
        program.chmod(0o755)
        return tmp_path / "called"

    return made


def refusal(folder: str = "overlay", *, max_bytes: int = 10_000, time_limit_s: float = 60.0) -> HengeError:
    """How a build is refused."""
    with pytest.raises(HengeError) as refused:
        kustomize.build(folder, max_bytes=max_bytes, time_limit_s=time_limit_s)
    return refused.value


@pytest.mark.parametrize(("program", "call"), [("kustomize", "build overlay"), ("kubectl", "kustomize overlay")])
def test_whichever_is_installed_builds(install: Install, program: str, call: str) -> None:
    called = install(program, output=LAMP)

    assert kustomize.build("overlay", max_bytes=10_000).decode() == LAMP
    assert called.read_text() == call


def test_kustomize_itself_comes_first(install: Install) -> None:
    install("kubectl", output="kind: Wrong")
    called = install("kustomize", output=LAMP)

    assert kustomize.build("overlay", max_bytes=10_000).decode() == LAMP
    assert called.read_text() == "build overlay"


def test_where_neither_is_installed_both_cures_are_named(install: Install) -> None:
    error = refusal()

    assert isinstance(error, Invalid)
    assert (error.code, "neither is on the PATH" in error.message) == ("bad_usage", True)
    assert "install kustomize" in error.cure
    assert "-f" in error.cure


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"{KLOG}\n", 'invalid Kustomization: unknown field "bogus"'),
        ("Error: no such file\n", "no such file"),
        ("error: no such file\n", "no such file"),
        ("one\ntwo\n", "one; two"),
        ("", "it ended with 3 and said nothing"),
        ("x" * 5000, "x" * 1000 + "..."),
        ("\udcff", "\ufffd"),
    ],
)
def test_its_trouble_is_told_without_what_is_about_itself(install: Install, said: str, told: str) -> None:
    install("kubectl", code=3, more=f"sys.stderr.buffer.write({os.fsencode(said)!r})")
    error = refusal()

    assert error.code == "bad_file"
    assert error.message == f"kubectl kustomize overlay failed: {told}"


def test_more_than_files_may_have_is_refused(install: Install) -> None:
    install("kustomize", output="#" * 10_001)

    assert isinstance(refusal(), TooLarge)


def test_what_takes_too_long_is_ended_with_all_that_it_started(install: Install, tmp_path: Path) -> None:
    noted, child = tmp_path / "grandchild", f"[{sys.executable!r}, '-c', 'import signal; signal.pause()']"
    install(
        "kustomize",
        more=f"import subprocess\nchild = subprocess.Popen({child})\nnew = pathlib.Path({str(noted)!r} + '.new')\n"
        f"new.write_text(str(child.pid))\nnew.rename({str(noted)!r})\nchild.wait()",
    )
    limit_s = 1.0
    while not noted.exists():  # a slow machine may need longer to start two interpreters
        error = refusal(time_limit_s=limit_s)
        limit_s *= 2
    pid = int(noted.read_text())
    deadline = time.monotonic() + 30
    while _runs(pid) and time.monotonic() < deadline:
        continue
    try:
        assert not _runs(pid)
        assert f"did not end within {limit_s / 2:g} s" in error.message
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    """Whether a process is there and no mere entry that nobody waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_place_in_its_output_names_the_folder(install: Install) -> None:
    install("kustomize", output=f"{LAMP}---\nkind: ConfigMap\napiVersion: v1\nmetadata: {{name: a}}\n")
    with pytest.raises(Invalid) as refused:
        manifest.read([], folder="overlay")

    assert "(kustomize overlay):11:13: apiVersion is 'v1'" in refused.value.message


def test_who_names_a_kustomization_as_a_file_is_told_the_way(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\n")
    with pytest.raises(Invalid) as refused:
        manifest.read([str(tmp_path)])

    assert refused.value.cure == f"apply what kustomize makes of it: -k {tmp_path}"


async def test_apply_and_diff_take_a_folder(
    face: Face, daemon: Service, admin: Admin, install: Install, tmp_path: Path
) -> None:
    face.environ(HENGE_SOCKET=str(daemon.socket))
    await admin.apply(schema())
    called = install("kustomize", output=LAMP)
    told = await face.run("diff", "-k", "overlay")
    assert (told.code, "device/lamp-1 created" in told.out) == (1, True)
    await face.ok("apply", "--set", "git", "-k", "overlay")
    assert (await face.run("diff", "--set", "git", "--prune", "-k", "overlay")).code == OK
    install("kustomize", output=LAMP.replace("red", "pink"))
    ran = await face.run("apply", "--set", "git", "-k", "overlay")
    assert (ran.code, "(kustomize overlay):8:12" in ran.err) == (INVALID, True), ran

    install("kustomize", error="Error: no kustomization\n", code=1)
    ran = await face.run("apply", "-k", "overlay")
    assert (ran.code, "kustomize build overlay failed: no kustomization" in ran.err) == (INVALID, True)
    assert called.read_text() == "build overlay"
    (tmp_path / "bin" / "kustomize").unlink()
    assert (await face.run("diff", "-k", "overlay")).code == USAGE


# ---- the real ones -----------------------------------------------------------------------------------------------

REAL = [program for program in ("kustomize", "kubectl") if shutil.which(program)]


@pytest.fixture(params=REAL or [pytest.param("", marks=pytest.mark.skip("neither kustomize nor kubectl is installed"))])
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to build, and only one real program on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / request.param).symlink_to(str(shutil.which(request.param)))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "lamp.yaml").write_text(LAMP)
    return overlay


def test_a_real_one_patches_and_prefixes_our_objects(real: Path) -> None:
    (real / "kustomization.yaml").write_text(
        "resources: [lamp.yaml]\nnamePrefix: hall-\nlabels: [{pairs: {room: hall}}]\n"
        "patches:\n- patch: |-\n    apiVersion: henge/v1\n    kind: Device\n    metadata: {name: lamp-1}\n"
        "    spec: {values: {color: blue}}\n"
    )
    (lamp,) = manifest.read([], folder=str(real)).objects

    assert lamp["metadata"] == {"name": "hall-lamp-1", "labels": {"room": "hall"}}
    assert lamp["spec"] == {"schema": "lamp", "values": {"color": "blue"}}


def test_trouble_of_a_real_one_is_one_readable_sentence(real: Path) -> None:
    (real / "kustomization.yaml").write_text("bogus: []\n")
    error = refusal(str(real))

    assert error.code == "bad_file"
    assert 'unknown field "bogus"' in error.message
    assert "run.go" not in error.message
    assert "\n" not in error.message
