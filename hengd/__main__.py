"""``python -m hengd``."""

from hengd.cli import main

main()
