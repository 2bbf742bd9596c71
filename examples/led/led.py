#!/usr/bin/env python3
"""A light that is what henge says: shows the document in FILE, and looks every fifth of a second whether it changed.

It drives a LED of the board through /sys/class/leds (--led ACT), or one that is wired to a pin through gpioset
(--gpio gpiochip0:17). Without either, or where there is no such LED, it draws one in the terminal.
Nothing but Python 3.11 and its own library.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

LOOK_S = 0.2
AMBER = (255, 190, 60)


class Lamp(Protocol):
    """Something that can be lit."""

    def show(self, percent: int) -> None:
        """Light it with 0 to 100 percent."""

    def close(self) -> None:
        """Leave it as it was found."""


class SysfsLamp:
    """A LED that the kernel knows, such as the green one of a Pi."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._most = int((folder / "max_brightness").read_text())
        self._trigger = self._present_trigger()
        self._write("trigger", "none")  # what blinks at every access to the card would fight with us

    def show(self, percent: int) -> None:
        level = round(percent * self._most / 100)
        self._write("brightness", str(max(1, level) if percent else 0))

    def close(self) -> None:
        self._write("trigger", self._trigger)

    def _present_trigger(self) -> str:
        """The one in brackets: ``none timer [mmc0]``."""
        words = (self._folder / "trigger").read_text().split()
        return next((word.strip("[]") for word in words if word.startswith("[")), "none")

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)


class GpioLamp:
    """A LED between a pin and ground, with its resistor; on or off, because a pin knows no more."""

    def __init__(self, place: str) -> None:
        self._chip, _, self._line = place.partition(":")
        said = subprocess.run(["gpioset", "--version"], capture_output=True, text=True, check=False).stdout
        self._old = "v1." in said
        self._holding: subprocess.Popen[bytes] | None = None
        self._on: bool | None = None

    def show(self, percent: int) -> None:
        if self._on != bool(percent):
            self._on = bool(percent)
            self._let_go()
            chip = ["--mode=signal", self._chip] if self._old else ["--chip", self._chip]
            self._holding = subprocess.Popen(["gpioset", *chip, f"{self._line}={int(self._on)}"])  # holds the pin

    def close(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._holding is not None:
            self._holding.terminate()
            self._holding.wait()
            self._holding = None


class DrawnLamp:
    """A LED made of characters; one line that is written anew, or a line each time where that is no terminal."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._shown: int | None = None

    def show(self, percent: int) -> None:
        if percent == self._shown:
            return
        self._shown = percent
        text = f"{percent} %" if percent else "off"
        if self._live:
            red, green, blue = (60 + (part - 60) * percent // 100 for part in AMBER)
            dot = f"\x1b[38;2;{red};{green};{blue}m{'●' if percent else '○'}\x1b[0m"
            print(f"\r\x1b[2K  {dot}  {text}", end="", flush=True)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self._live:
            print()


class Wish:
    """What the document says. A file that is absent or not finished changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._values: dict[str, Any] = {}
        self._trouble = ""
        """What was told last, once."""

    def look(self) -> None:
        """Read the file if it is another one than before."""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns)
            if seen != self._seen:
                self._values, self._seen = self._read(), seen
            self._trouble = ""
        except (OSError, ValueError, TypeError) as error:
            if str(error) != self._trouble:
                print(f"\n{self._path}: {error}", file=sys.stderr)
            self._trouble, self._seen = str(error), None

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self._path.read_bytes())
        except ValueError as error:
            raise ValueError(f"not the agent's output as JSON ({error})") from error
        if not isinstance(values, dict):
            raise TypeError("not the agent's output as JSON (no object)")
        return values

    def percent(self, now_s: float) -> int:
        """How bright it should be now."""
        if not self._values.get("power", False):
            return 0
        blink_s = self._values.get("blink_ms", 0) / 1000
        if blink_s and now_s % (2 * blink_s) >= blink_s:
            return 0
        return int(self._values.get("brightness", 100))


def lamp_for(chosen: argparse.Namespace) -> Lamp:
    """The lamp that was asked for, or a drawn one."""
    if chosen.gpio and shutil.which("gpioset"):
        return GpioLamp(chosen.gpio)
    if chosen.gpio:
        print("gpioset is missing (sudo apt install gpiod); drawing the LED instead", file=sys.stderr)
    elif chosen.led:
        folder = chosen.leds / chosen.led
        try:
            return SysfsLamp(folder)
        except OSError as error:
            print(f"cannot use {folder}: {error.strerror}; drawing the LED instead", file=sys.stderr)
    return DrawnLamp()


def main() -> int:
    """Show the document until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the agent's output, as JSON")
    parser.add_argument("--led", help="a name in /sys/class/leds, such as ACT")
    parser.add_argument("--gpio", metavar="CHIP:LINE", help="a pin, such as gpiochip0:17")
    parser.add_argument("--leds", type=Path, default=Path("/sys/class/leds"), help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help="show it once and leave the LED so")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wish, lamp = Wish(chosen.file), lamp_for(chosen)
    try:
        while True:
            wish.look()
            lamp.show(wish.percent(time.monotonic()))
            if chosen.once:
                return 0
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        return 0
    finally:
        if not chosen.once:
            lamp.close()


if __name__ == "__main__":
    sys.exit(main())
