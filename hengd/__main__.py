"""``python -m hengd``."""

from __future__ import annotations

from hengd.cli import main

main()
