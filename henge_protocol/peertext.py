"""Text from elsewhere, made fit to be shown: nothing in it moves a cursor, hides a word or fills a screen."""

from __future__ import annotations

import unicodedata


def clean_text(text: str, limit: int) -> str:
    """Return what a peer said, safe to print: NFC, one line, at most ``limit`` characters.

    Control, format (also bidirectional) and unassigned characters and lone surrogates are dropped, other
    white space becomes a space.
    """
    shown = []
    for character in unicodedata.normalize("NFC", text[: 8 * limit]):
        category = unicodedata.category(character)
        if category.startswith("Z"):
            shown.append(" ")
        elif not category.startswith("C"):
            shown.append(character)
    return "".join(shown)[:limit].strip()


def printable(text: str) -> str:
    """Lines of a message, with everything escaped that could move the cursor, hide or turn text round."""
    return "\n".join(
        "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line) for line in text.split("\n")
    )
