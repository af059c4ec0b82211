"""Text on its way into the journal: without colours, and always something that UTF-8 can hold."""

from __future__ import annotations

import re

_COLOUR = "(?:\x1b\\[|\x9b)[0-9;:]*m"  # SGR, the one control sequence that only decorates


def storable(text: str) -> str:
    """Returns a text without colours, and with `\\udce9` written out where an unpaired surrogate stood."""
    if text.isascii():
        return re.sub(_COLOUR, "", text) if "\x1b" in text else text
    return re.sub(_COLOUR, "", text).encode("utf-8", "backslashreplace").decode()
