"""What `make board` does: a simulated board beside `make run`. The unix MicroPython runs the lamp example and draws it.

The board joins as lamp-2 by a one-time token, exactly as one made of silicon would; its flash is .henge/demo/board.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
NAME = "lamp-2"
EXAMPLE = REPOSITORY / "examples" / "micropython" / "lamp" / "main.py"


class Stop(Exception):
    """A step failed; the message says which and what to do."""


def main() -> int:
    """Runs until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".henge" / "demo", help="that of `make run`")
    chosen = parser.parse_args()
    try:
        board = prepare(chosen.folder)
        return run(board, runtime())
    except Stop as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe board is switched off. Its flash is kept; switch it on again with: make board")
        return 0


def prepare(folder: Path) -> Path:
    """The board's flash: with a setup until it has joined."""
    board = folder / "board"
    board.mkdir(parents=True, exist_ok=True)
    if not (board / "henge" / "identity").exists():
        environment = {**os.environ, "HENGE_SOCKET": str(folder / "admin.sock")}
        token = hengectl(environment, "token", "create", "--name", NAME, "--schema", "lamp", "--ttl", "5m", "-q")
        status = json.loads(hengectl(environment, "status", "-o", "json"))
        setup = {"server": urlsplit(status["listeners"]["devices"][0]).netloc, "token": token.strip(), "name": NAME}
        with open(board / "henge.json", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            json.dump(setup, file)
    return board


def run(board: Path, micropython: Path) -> int:
    """The lamp, in this terminal."""
    print(f"A board that is {NAME}. In another terminal:")
    print(f"  export HENGE_SOCKET={board.parent / 'admin.sock'} PATH={PROGRAMS}:$PATH")
    print(f"  hengectl set device/{NAME} color=blue --wait")
    print(f"  hengectl set device/{NAME} power=false --wait", flush=True)
    environment = {**os.environ, "MICROPYPATH": f".frozen:{REPOSITORY / 'micropython'}"}
    return subprocess.run([micropython, EXAMPLE], cwd=board, env=environment, check=False).returncode


def runtime() -> Path:
    """A MicroPython, fetched if need be."""
    done = subprocess.run([REPOSITORY / "contrib" / "micropython.sh"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Stop(done.stderr.strip())
    return Path(done.stdout.strip())


def hengectl(environment: dict[str, str], *arguments: str) -> str:
    """What the command prints."""
    done = subprocess.run(
        [PROGRAMS / "hengectl", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip().removeprefix("Error: ")
        hint = 'Is `make run` running in another terminal? With a folder of its own: make board ARGS="--folder DIR"'
        raise Stop(f"{said}\n{hint}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
