"""A board's serial console for the unix MicroPython, which has none: the raw REPL that mpremote speaks.

Runs in MicroPython, at the other end of a terminal; see "The REPL" in MicroPython's reference. ``machine`` has the
little that mpremote asks of it; the board's flash is the folder that this runs in.
"""

import os
import sys

RAW = b"raw REPL; CTRL-B to exit\r\n>"


class Clock:
    def datetime(self, moment):
        """Take the time; the real clock stays."""


class Machine:
    """What a board's ``machine`` has."""

    RTC = Clock

    @staticmethod
    def reset():
        """Off and on again: whoever is connected finds the port gone."""
        raise SystemExit


class Flash:
    """``os`` as on a board, where the empty path is the folder that one is in."""

    def __getattr__(self, name):
        return getattr(os, name)

    def stat(self, path):
        """As ``os.stat``."""
        return os.stat(path or ".")


def serve(read, write):
    """Answer until the board is reset."""
    told, in_raw, names = b"", False, {}
    while True:
        one = read(1)
        if not one or one == b"\x03":
            told = b""
            if not one:
                return
        elif one == b"\x01":
            told, in_raw = b"", True
            write(RAW)
        elif one == b"\x02":
            told, in_raw = b"", False
            write(b"\r\n>>> ")
        elif one == b"\x05" and in_raw and not told:
            read(2)
            write(b"R\x00")  # no raw paste; the plain way will do
        elif one == b"\x04" and in_raw and not told:
            names = {}
            write(b"OK\r\nMPY: soft reboot\r\n" + RAW)
        elif one == b"\x04" and in_raw:
            text, told = told, b""
            write(b"OK")
            run(text, names, write)
        elif in_raw:
            told += one


def run(text, names, write):
    """One piece of program: its output, then what it raised."""
    try:
        exec(text, names)  # noqa: S102
    except SystemExit:
        raise
    except Exception as error:  # noqa: BLE001
        write(b"\x04")
        sys.print_exception(error, sys.stdout)
    else:
        write(b"\x04")
    write(b"\x04>")


sys.modules["machine"] = Machine
sys.modules["os"] = Flash()
serve(sys.stdin.buffer.read, sys.stdout.buffer.write)
