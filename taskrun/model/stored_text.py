"""Text on its way into the journal: without colours, and always something that UTF-8 can hold."""

from __future__ import annotations

import re

_COLOUR = re.compile("(?:\x1b\\[|\x9b)[0-9;:]*m")  # SGR, the one control sequence that only decorates


def storable(text: str) -> str:
    """Returns a text without colours, and with `\\udce9` written out where an unpaired surrogate stood."""
    if text.isascii():
        return _COLOUR.sub("", text) if "\x1b" in text else text
    return _COLOUR.sub("", text).encode("utf-8", "backslashreplace").decode()
