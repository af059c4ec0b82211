"""How screens look: marks, colours, bars and columns, and the one place where a renderable becomes text.

A screen is a pure function of a snapshot, a moment and a `Look`. Without UTF-8 marks become words; no state is shown by colour
or a mark alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from taskrun.cli.lazy_imports import ColorSystem, Style, Text, cell_len

GAP = 2
BLOCKS = " ▏▎▍▌▋▊▉█"
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN = str.maketrans(
    {"…": "~", "·": "-", "–": "-", "—": "-", "→": ">", "▸": ">", "❱": ">", "▏": "|", "│": "|", "█": "#"}
)


class Look(msgspec.Struct, frozen=True):
    """What a screen may use."""

    width: int = 80
    colour: bool = False
    utf8: bool = True
    tick: int = 2  # the frame of spinners; live screens increase it
    project: str = ""  # the option that commands need to mean this project


class Mark(msgspec.Struct, frozen=True):
    """How a state is shown: a sign, a word, and a style."""

    sign: str
    word: str
    style: str


MARKS = {
    "scheduled": Mark("◷", "scheduled", "cyan"),
    "queued": Mark("◌", "queued", "cyan"),
    "running": Mark("", "running", "blue"),
    "waiting": Mark("◔", "waiting", "cyan"),
    "paused": Mark("‖", "paused", "yellow"),
    "succeeded": Mark("✓", "done", "green"),
    "failed": Mark("✗", "failed", "red"),
    "cancelled": Mark("⊘", "cancelled", "magenta"),
    "discarded": Mark("⊝", "discarded", "magenta"),
    "interrupted": Mark("‖", "interrupted", "yellow"),
    "retry": Mark("↻", "retry", "yellow"),
}


def mark(state: str, look: Look) -> Text:
    """Returns the sign of a state, or its word where there are no signs."""
    found = MARKS.get(state, Mark("?", state, ""))
    sign = found.sign or SPINNER[look.tick % len(SPINNER)]
    return Text(sign if look.utf8 else found.word, found.style)


def labelled(state: str, look: Look, more: str = "") -> Text:
    """Returns a state with its sign and its word."""
    found = MARKS.get(state, Mark("?", state, ""))
    word = f"{found.word} {more}".rstrip()
    return mark(state, look).append(f" {word}", found.style) if look.utf8 else Text(word, found.style)


def bar(fraction: float, width: int, look: Look) -> str:
    """Returns a progress bar."""
    filled = min(max(fraction, 0.0), 1.0) * width
    if not look.utf8:
        return ("#" * round(filled)).ljust(width, "-")
    whole, part = divmod(round(filled * 8), 8)
    return ("█" * whole + (BLOCKS[part] if part else "")).ljust(width)


def fitted(text: Text, width: int, right: bool = False) -> Text:
    """Returns a cell of exactly `width` columns, with `…` where it is cut."""
    cut = text.copy()
    cut.truncate(width, overflow="ellipsis")
    padding = " " * (width - cell_len(cut.plain))
    return Text(padding).append_text(cut) if right else cut.append(padding)


def clipped(text: Text, width: int) -> Text:
    """Returns a line of at most `width` columns."""
    return text if cell_len(text.plain) <= width else fitted(text, width)


def columns(rows: Sequence[Sequence[Text]], widths: Sequence[int], right: Sequence[bool]) -> list[Text]:
    """Returns rows of cells as lines."""
    gap = Text(" " * GAP)
    made = []
    for row in rows:
        line = gap.join(fitted(cell, width, side) for cell, width, side in zip(row, widths, right, strict=True))
        line.rstrip()
        made.append(line)
    return made


def widest(rows: Sequence[Sequence[Text]]) -> list[int]:
    """Returns the natural width of each column."""
    return [max(cell_len(cell.plain) for cell in column) for column in zip(*rows, strict=True)]


def printed(renderable: Text | str, look: Look) -> str:
    """Returns the text that is sent to a terminal of that look."""
    if isinstance(renderable, str) or not look.colour:
        text = f"{renderable}\n"
    else:
        text = "".join(f"{line}\n" for line in _coloured_lines(renderable))
    return text if look.utf8 else text.translate(_PLAIN).encode("ascii", "replace").decode()


def _coloured_lines(text: Text) -> Iterator[str]:
    """Yields lines with their styles as a terminal takes them, each whole in itself, since it may be drawn again alone.

    `rich.console` would do it too, but takes as long to import as all else that a screen needs of rich.
    """
    parse, combine, standard = Style.parse, Style.combine, ColorSystem.STANDARD
    for line in text.split("\n", allow_blank=True):
        line.expand_tabs(8)
        plain, spans = line.plain, line.spans
        edges = sorted({0, len(plain), *(edge for span in spans for edge in (span.start, span.end))})
        parts = []
        for start, end in pairwise(edges):
            names = [line.style, *(span.style for span in spans if span.start <= start < span.end)]
            parts.append(combine(parse(str(name)) for name in names).render(plain[start:end], color_system=standard))
        yield "".join(parts)


def hanging(head: Text, body: Sequence[Text], look: Look) -> Text:
    """Returns text to the right of a head, wrapped between words and never below the head."""
    indent = cell_len(head.plain)
    width = max(look.width - indent, 20)
    lines = [line for text in body for line in text.wrap(None, width)]  # type: ignore[arg-type]  # a console only justifies
    for line in lines:
        line.rstrip()
    return Text("\n" + " " * indent).join([head.append_text(lines[0]), *lines[1:]] if lines else [head])


def wrapped(text: str, width: int, separator: str = " · ") -> str:
    """Returns text with line ends in place of separators, so that no line is wider than it must be."""
    lines = [""]
    for part in text.split(separator):
        longer = f"{lines[-1]}{separator}{part}" if lines[-1] else part
        if lines[-1] and cell_len(longer) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def stacked(lines: Sequence[Text]) -> Text:
    """Returns lines as one renderable."""
    return Text("\n").join(lines)
