"""As much of a terminal as live screens use, made of plain objects."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\x1b\[(\?[0-9]+)?([0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n])")


class Emulator:
    """As much of a terminal as `Sticky` uses: cursor up, erase, wrap, scroll."""

    def __init__(self, width: int, height: int = 100) -> None:
        self.width, self.height = width, height
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0
        self.cursor_shown = True

    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def write(self, text: str) -> None:
        for private, count, final, back, line, char in _TOKEN.findall(text):
            if private:
                self.cursor_shown = final == "h" if private == "?25" else self.cursor_shown
            elif final == "A":
                self.row = max(0, self.row - int(count or 1))
            elif final == "K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif final == "J":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            elif back:
                self.column = 0
            elif line:
                self._down()
            elif char:
                self._put(char)

    def _put(self, char: str) -> None:
        if self.column == self.width:
            self._down()
            self.column = 0
        row = self.rows[self.row]
        row.extend(" " * (self.column + 1 - len(row)))
        row[self.column] = char
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])

    def narrow(self, width: int) -> None:
        """Wraps what stands there, as terminals do."""
        before = ["".join(row) for row in self.rows]
        self.rows = [list(text[at : at + width]) for text in before for at in range(0, max(1, len(text)), width)]
        self.row = len(self.rows) - 1
        self.column = len(self.rows[-1])
        self.width = width

    def text(self) -> list[str]:
        found = ["".join(row).rstrip() for row in self.rows]
        return found[: max((at + 1 for at, line in enumerate(found) if line), default=0)]
