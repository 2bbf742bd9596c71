"""``python -m hengectl``."""

from __future__ import annotations

from hengectl.cli import main

main()
