"""What kustomize makes of a folder: by ``kustomize build``, or ``kubectl kustomize`` where only that is installed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from typing import IO, Final

from henge_protocol.errors import Invalid, TooLarge

PROGRAMS: Final = (("kustomize", "build"), ("kubectl", "kustomize"))
TIME_LIMIT_S: Final = 60.0
"""It may fetch bases from elsewhere."""
MAX_ERROR_CHARS: Final = 1000

_KLOG = re.compile(r'^E\d{4} .*? err="(?P<said>.*)"$')
"""How kubectl says it: ``E1126 13:18:49.74 7855 run.go:72] "command failed" err="..."``."""


def build(folder: str, *, max_bytes: int, time_limit_s: float = TIME_LIMIT_S) -> bytes:
    """The objects of a kustomization, as YAML.

    Raises ``Invalid`` ``bad_usage`` where neither program is installed, ``Invalid`` ``bad_file`` with what it said when
    it fails or takes too long, and ``TooLarge``.
    """
    command = [*_program(), folder]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        ended = _run(command, output, errors, time_limit_s)
        if ended != 0:
            raise Invalid("bad_file", f"{' '.join(command)} failed: {_said(errors, ended)}")
        if os.fstat(output.fileno()).st_size > max_bytes:
            raise TooLarge("too_large", f"{' '.join(command)} makes more than {max_bytes >> 20} MiB")
        output.seek(0)
        return output.read()


def _program() -> tuple[str, str]:
    for program in PROGRAMS:
        if shutil.which(program[0]):
            return program
    raise Invalid(
        "bad_usage",
        "-k needs kustomize or kubectl, and neither is on the PATH",
        cure="install kustomize (https://kubectl.docs.kubernetes.io/installation/kustomize/), or name files with -f",
    )


def _run(command: list[str], output: IO[bytes], errors: IO[bytes], time_limit_s: float) -> int:
    """Its exit code. It may start git and others: all of them end with it, also when a person interrupts."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise Invalid("bad_file", f"{command[0]} cannot be started ({error})") from None
    try:
        return process.wait(time_limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        raise Invalid("bad_file", f"{' '.join(command)} did not end within {time_limit_s:g} s") from None
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
    process.wait()


def _said(errors: IO[bytes], ended: int) -> str:
    """What it said, without what is about itself; or with which code it ended."""
    errors.seek(0)
    text = errors.read(64 * 1024).decode("utf-8", "replace")
    lines = [_cleaned(line) for line in text.splitlines()]
    said = "; ".join(line for line in lines if line)
    if len(said) > MAX_ERROR_CHARS:
        said = f"{said[:MAX_ERROR_CHARS]}..."
    return said or f"it ended with {ended} and said nothing"


def _cleaned(line: str) -> str:
    logged = _KLOG.match(line.strip())
    said = logged["said"].replace('\\"', '"').replace("\\n", " ") if logged else line.strip()
    return re.sub(r"^(error|Error): ", "", said)
