"""Bytes that are no UTF-8, such as in names of files, on their way through JSON.

Python keeps such a byte in text as an unpaired surrogate (PEP 383: byte E9 is `\\udce9`), which UTF-8 and so the journal
cannot hold. There it stands as U+10FF00 plus the byte, a character of private use. A text that has these characters itself is
written as the bytes of its UTF-8, which read back as what they were. So every text of a file system survives. Whole values:
`escaped_values`.
"""

from __future__ import annotations

import re

ESCAPED = "[\U0010ff80-\U0010ffff]+"
_TO_ESCAPE = "[\udc80-\udcff\U0010ff80-\U0010ffff]"
_BASE = 0x10FF00


def escaped(text: str) -> str:
    """Returns text as the journal keeps it."""
    return text if text.isascii() else re.sub(_TO_ESCAPE, _escape, text)


def restored(text: str) -> str:
    """Returns text of the journal as it was."""
    return text if text.isascii() else re.sub(ESCAPED, _restore, text)


def readable(text: str) -> str:
    """Returns text of the journal for people, with such bytes written out as `\\xe9`."""
    return text if text.isascii() else re.sub(ESCAPED, _write_out, text)


def _escape(found: re.Match[str]) -> str:
    return "".join(chr(_BASE + byte) for byte in found[0].encode("utf-8", "surrogateescape"))


def _restore(found: re.Match[str]) -> str:
    return bytes(ord(letter) - _BASE for letter in found[0]).decode("utf-8", "surrogateescape")


def _write_out(found: re.Match[str]) -> str:
    return "".join(f"\\x{ord(letter) - _BASE:02x}" for letter in found[0])
