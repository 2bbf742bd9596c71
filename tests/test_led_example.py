"""The LED of examples/led: a LED of the kernel (a folder stands for it), one on a pin, and one drawn in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hengd.rules.schemas import check_schema
from tests.system.programs import PATIENCE_S, PROGRAMS, output_of, running

EXAMPLE = Path(__file__).parent.parent / "examples" / "led"


@pytest.fixture
def wish(tmp_path: Path) -> Path:
    path = tmp_path / "led.json"
    write(path, power=True, brightness=40, blink_ms=0)
    return path


@pytest.fixture
def leds(tmp_path: Path) -> Path:
    """A folder like /sys/class/leds with one LED."""
    led = tmp_path / "leds" / "ACT"
    led.mkdir(parents=True)
    for name, text in {"brightness": "0", "max_brightness": "255", "trigger": "none timer [mmc0]"}.items():
        (led / name).write_text(text)
    return led.parent


def write(path: Path, **values: Any) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(values))
    beside.replace(path)


def once(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLE / "led.py", *arguments, "--once"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environ})


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({"power": True, "brightness": 40}, "102"),
        ({"power": True, "brightness": 100, "blink_ms": 0}, "255"),
        ({"power": True, "brightness": 1}, "3"),
        ({"power": True}, "255"),
        ({"power": False, "brightness": 40}, "0"),
        ({}, "0"),
    ],
)
def test_a_led_of_the_kernel_is_as_bright_as_the_document_says(
    wish: Path, leds: Path, values: dict[str, Any], level: str
) -> None:
    write(wish, **values)
    once(wish, "--led", "ACT", "--leds", leds)

    assert (leds / "ACT" / "brightness").read_text() == level
    assert (leds / "ACT" / "trigger").read_text() == "none"


def test_a_led_that_knows_only_on_and_off_is_on_at_one_percent(wish: Path, leds: Path) -> None:
    (leds / "ACT" / "max_brightness").write_text("1\n")
    write(wish, power=True, brightness=1)
    once(wish, "--led", "ACT", "--leds", leds)

    assert (leds / "ACT" / "brightness").read_text() == "1"


def test_without_such_a_led_it_is_drawn(wish: Path, leds: Path) -> None:
    said = once(wish, "--led", "led9", "--leds", leds)

    assert said.stdout == "40 %\n"
    assert "led9: No such file or directory; drawing" in said.stderr


def test_without_a_document_it_is_off_and_a_damaged_one_is_told(tmp_path: Path, wish: Path) -> None:
    absent = once(tmp_path / "none.json")
    assert (absent.stdout, "none.json" in absent.stderr) == ("off\n", True)
    for text in ("{", "power: true\n", "[1]"):
        wish.write_text(text)
        damaged = once(wish)
        assert (damaged.stdout, "not the agent's output as JSON" in damaged.stderr) == ("off\n", True)


@pytest.mark.parametrize(
    ("version", "arguments"),
    [
        ("gpioset (libgpiod) v1.6.3", "--mode=signal gpiochip0 17=1"),
        ("gpioset (libgpiod) v2.2", "--chip gpiochip0 17=1"),
    ],
)
def test_a_led_on_a_pin_is_held_by_gpioset(tmp_path: Path, wish: Path, version: str, arguments: str) -> None:
    fifo = tmp_path / "said"
    os.mkfifo(fifo)
    (tmp_path / "gpioset").write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; else echo "$@" > {fifo}; fi\n'
    )
    (tmp_path / "gpioset").chmod(0o755)
    command = [sys.executable, EXAMPLE / "led.py", wish, "--gpio", "gpiochip0:17"]
    lamp = subprocess.Popen(command, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    try:
        said = fifo.read_text()
    finally:
        lamp.terminate()

    assert said == f"{arguments}\n"
    assert lamp.wait(PATIENCE_S) == 0


def test_without_gpioset_it_is_drawn(wish: Path, tmp_path: Path) -> None:
    said = once(wish, "--gpio", "gpiochip0:17", PATH=str(tmp_path))

    assert (said.stdout, "sudo apt install gpiod" in said.stderr) == ("40 %\n", True)


class Terminal:
    """The program in a terminal of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self._screen, end = pty.openpty()
        self.program = subprocess.Popen(
            [sys.executable, EXAMPLE / "led.py", *arguments], stdin=end, stdout=end, stderr=end
        )
        os.close(end)
        self.shown = ""

    def shows(self, text: str) -> None:
        """Read until this is on the screen, after what was waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.shown
            self.shown += os.read(self._screen, 4096).decode()
        self.shown = self.shown.partition(text)[2]

    def end(self) -> int:
        self.program.send_signal(signal.SIGINT)
        code = self.program.wait(PATIENCE_S)
        os.close(self._screen)
        return code


def test_in_a_terminal_the_light_changes_with_the_file(wish: Path) -> None:
    terminal = Terminal(wish)
    try:
        terminal.shows("●\x1b[0m  40 %")
        write(wish, power=False, brightness=40, blink_ms=0)
        terminal.shows("○\x1b[0m  off")
        write(wish, power=True, brightness=70, blink_ms=200)
        for _ in range(2):  # it blinks
            terminal.shows("●\x1b[0m  70 %")
            terminal.shows("○\x1b[0m  off")
    finally:
        assert terminal.end() == 0


def test_when_it_ends_the_led_is_as_it_was_found(wish: Path, leds: Path) -> None:
    os.unlink(leds / "ACT" / "brightness")
    os.mkfifo(leds / "ACT" / "brightness")
    terminal = Terminal(wish, "--led", "ACT", "--leds", leds)
    try:
        with open(leds / "ACT" / "brightness", "rb") as told:
            assert told.read(3) == b"102"
    finally:
        terminal.program.send_signal(signal.SIGTERM)

    assert terminal.program.wait(PATIENCE_S) in (0, 1)
    assert (leds / "ACT" / "trigger").read_text() == "mmc0"


def test_the_schema_is_one_that_henge_takes() -> None:
    check_schema(yaml.safe_load((EXAMPLE / "led.yaml").read_text("utf-8"))["spec"]["schema"])


@pytest.mark.system
def test_a_command_on_one_side_changes_the_light_on_the_other(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        hengectl = [PROGRAMS / "hengectl", "--socket", daemon.socket]
        subprocess.run([*hengectl, "apply", "-f", EXAMPLE / "led.yaml"], check=True, capture_output=True)
        daemon.admin.call("PUT", "/v1/devices/my-led", {"kind": "Device", "spec": {"schema": "led"}})
        state = daemon.join("my-led")
        with daemon.agent(state):
            daemon.admin.until("my-led", config="in-sync")
            terminal = Terminal(output_of(state))
            try:
                terminal.shows("100 %")
                subprocess.run([*hengectl, "set", "device/my-led", "brightness=20"], check=True, capture_output=True)
                terminal.shows("20 %")
                wrong = [*hengectl, "set", "device/my-led", "brightness=200"]
                refused = subprocess.run(wrong, check=False, capture_output=True)
            finally:
                assert terminal.end() == 0

    assert refused.returncode == 6
