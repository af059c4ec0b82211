"""Makes text of jobs safe for a screen: none of its control characters reaches a terminal.

C0 and DEL are shown as `^[`, C1 and characters that reorder text (bidi) as `<9B>`, `<U+202E>`, as `less` does. Every screen
passes text that is not its own through here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from taskrun.model.byte_escapes import restored

_JSON = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"  # what `json` does not escape
_MORE = "\U000e0000-\U000e007f"  # tags, which are invisible
_UNSAFE = f"[\x00-\x1f{_JSON}{_MORE}]"  # one pattern for all, since each takes long to compile
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_NOT_ASCII = "[^\x00-\x7f]+"
_SGR = r"(\x1b\[[0-9;:]*m)"

LONGEST = 2000  # characters of a value on a screen
CUT = 200  # characters of a value in a piped table


def lines(text: str) -> str:
    """Returns text of several lines; line ends and tabs are kept."""
    return _replaced(restored(text).replace("\r\n", "\n"), _shown_in_lines)


def cell(text: str) -> str:
    """Returns text as one line, for a cell of a table."""
    return _replaced(restored(text), lambda found: _ESCAPES.get(found[0]) or _shown(found))


def cut(text: str, limit: int = CUT) -> str:
    """Returns at most `limit` characters of text, the last one `…` where something is missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def coloured(text: str) -> str:
    """Returns text with its colours (SGR sequences) kept, and reset at its end."""
    parts = re.split(_SGR, text)
    shown = [part if index % 2 else lines(part) for index, part in enumerate(parts)]
    return "".join(shown) + ("\x1b[0m" if len(parts) > 1 else "")


def to_json(value: Any, indent: int | None = None, ascii: bool = False) -> str:
    """Returns a value as JSON text that cannot control a terminal; with `ascii`, in ASCII alone."""
    return safe_json(json.dumps(value, ensure_ascii=ascii, indent=indent), False)


def safe_json(text: str, ascii: bool) -> str:
    """Returns JSON text, or a part of one, as `to_json` would have made it."""
    text = restored(text)
    if ascii and not text.isascii():
        text = re.sub(_NOT_ASCII, lambda found: json.dumps(found[0])[1:-1], text)
    return _replaced(text, _escaped_in_json)


def value(given: Any) -> str:
    """Returns a value as a cell: text as it is, anything else as JSON."""
    return cell(given) if isinstance(given, str) else to_json(given)


def brief(given: Any) -> str:
    """Returns a value as a cell, cut to what a screen can show: outputs may have many megabytes."""
    return cut(value(given[: LONGEST + 1] if isinstance(given, str) else given), LONGEST)


def _replaced(text: str, shown: Callable[[re.Match[str]], str]) -> str:
    """Returns text with what is unsafe in it shown; nothing unsafe is printable, which is known without the pattern."""
    return text if text.isprintable() else re.sub(_UNSAFE, shown, text)


def _escaped_in_json(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\u{ord(char):04x}" if " " < char <= "\uffff" else char  # it has line ends of its own


def _shown_in_lines(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _shown(found)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 32 or code == 127:
        return f"^{chr(code ^ 64)}"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, such as in the name of a file
        return f"\\x{code - 0xDC00:02x}"
    return f"<{code:02X}>" if code < 0xA0 else f"<U+{code:04X}>"
