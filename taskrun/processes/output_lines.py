"""Cuts what comes on one stream into the lines of a log, the same way whoever prints: handlers, steps, processes, commands.

A progress display writes its line again and again, with carriage returns between. Of such a line the log has the states that it
was in, at most ten a second, and always the last one.
"""

from __future__ import annotations

import re

LONGEST = 64 * 1024  # characters of a line; a longer one is cut into pieces
LIVELY = 0.1  # seconds between two states of a line that is written again and again
_UNSEEN = re.compile("\x1b\\[[0-9;]*[A-Za-z]|\\s")  # what leaves nothing to be seen


class OutputLines:
    """The lines of one stream, and the one that it is at."""

    def __init__(self) -> None:
        self._pieces: list[str] = []  # of the line that is not ended yet
        self._size = 0
        self._rewritten = False  # the line had a carriage return
        self._shown: str | None = None  # its newest state in the log
        self._shown_at = float("-inf")

    def goes_on(self, text: str) -> bool:
        """Takes text if it ends no line: the quick way for the pieces of a `print`."""
        if "\n" in text or "\r" in text or self._rewritten or self._size + len(text) > LONGEST:
            return False
        self._pieces.append(text)
        self._size += len(text)
        return True

    def feed(self, text: str) -> list[str]:
        """Takes text; returns the lines that it ends."""
        *ended, rest = text.split("\n")
        lines: list[str] = []
        for piece in ended:
            self._add(piece, lines)
            self._end(lines)
        if rest:
            self._add(rest, lines)
        return lines

    def finish(self) -> list[str]:
        """Returns the line that was not ended, if there is one."""
        lines: list[str] = []
        if self._pieces:
            self._end(lines)
        return lines

    def state(self, now: float) -> str | None:
        """Returns the state of a line that is written again and again, if it is new and not too soon after the last."""
        if not self.restless or now - self._shown_at < LIVELY:
            return None
        self._shown, self._shown_at = self._text(), now
        return self._shown

    @property
    def open(self) -> bool:
        """Whether a line is not ended yet."""
        return bool(self._pieces)

    @property
    def restless(self) -> bool:
        """Whether a line that is written again and again has a state that the log does not have yet."""
        return self._rewritten and self._text() not in ("", self._shown)

    def _add(self, piece: str, lines: list[str]) -> None:
        if "\r" in piece or self._rewritten:
            self._rewritten = True
            self._pieces = [_shortened("".join(self._pieces) + piece)]
            self._size = len(self._pieces[0])
        elif piece:
            self._pieces.append(piece)
            self._size += len(piece)
        if self._size > LONGEST:
            self._cut(lines)

    def _cut(self, lines: list[str]) -> None:
        text = "".join(self._pieces)
        while len(text) > LONGEST:
            lines.append(text[:LONGEST])
            text = text[LONGEST:]
        self._pieces, self._size = [text], len(text)

    def _end(self, lines: list[str]) -> None:
        text = self._text() if self._rewritten else "".join(self._pieces)
        if not self._rewritten or text != self._shown:
            lines.append(text)
        self._pieces, self._size = [], 0
        self._rewritten, self._shown = False, None

    def _text(self) -> str:
        return _newest("".join(self._pieces)).rstrip(" ")


def _shortened(text: str) -> str:
    """Returns a line without its older states; what comes next may go on with the newest, or replace it."""
    if "\r" not in text:
        return text
    last = text.rpartition("\r")[2]
    return last if _visible(last) else f"{_newest(text)}\r{last}"


def _newest(text: str) -> str:
    """Returns the newest state of a line.

    What only clears the line is no state: a bar that is taken away at its end stays in the log as it last was.
    """
    return next((state for state in reversed(text.split("\r")) if _visible(state)), "")


def _visible(state: str) -> bool:
    return bool(_UNSEEN.sub("", state))
