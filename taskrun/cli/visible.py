"""Text that comes from jobs, made safe for a screen: no control character of it reaches a terminal.

C0 and DEL are shown as `^[`, C1 and what reorders text (bidi) as `<9B>`, `<U+202E>`, as `less` does. Every renderer
passes foreign text through here.
"""

from __future__ import annotations

import json
import re
from typing import Any

_C0 = {code: f"^{chr(code ^ 64)}" for code in (*range(32), 127)}
_C1 = {code: f"<{code:02X}>" for code in range(0x80, 0xA0)}
_REORDERING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_UNPRINTABLE = (*_REORDERING, *range(0xD800, 0xE000), *range(0xE0000, 0xE0080))
_TABLE = _C0 | _C1 | {code: f"<U+{code:04X}>" for code in _UNPRINTABLE}
_LINES = {code: shown for code, shown in _TABLE.items() if chr(code) not in "\n\t"}
_CELL = _TABLE | {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r"}
_JSON = {code: f"\\u{code:04x}" for code in (127, *range(0x80, 0xA0), *_REORDERING, *range(0xD800, 0xE000))}
_SGR = re.compile(r"(\x1b\[[0-9;:]*m)")

CUT = 200  # characters of a value in a piped table


def lines(text: str) -> str:
    """Returns text of several lines; line ends and tabs stay."""
    return text.replace("\r\n", "\n").translate(_LINES)


def cell(text: str) -> str:
    """Returns text as one line, for a cell of a table."""
    return text.translate(_CELL)


def cut(text: str, limit: int = CUT) -> str:
    """Returns at most `limit` characters of text, the last one `…` where something is missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def coloured(text: str) -> str:
    """Returns text with its colours (SGR sequences) left in, and reset at its end."""
    parts = _SGR.split(text)
    shown = [part if index % 2 else lines(part) for index, part in enumerate(parts)]
    return "".join(shown) + ("\x1b[0m" if len(parts) > 1 else "")


def to_json(value: Any, indent: int | None = None, ascii: bool = False) -> str:
    """Returns a value as JSON text in which nothing can steer a terminal; as ASCII for who can read nothing else."""
    return json.dumps(value, ensure_ascii=ascii, indent=indent).translate(_JSON)


def value(given: Any) -> str:
    """Returns a value as a cell: text as it is, all else as JSON."""
    return cell(given) if isinstance(given, str) else to_json(given)
