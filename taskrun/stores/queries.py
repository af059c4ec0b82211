"""Named queries and numbered migrations out of the `.sql` files beside the stores. Read once, by each SQL store."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

_NUMBERED = r"\?(\d)"
_HERE = Path(__file__).parent


def named_queries(file: str) -> dict[str, str]:
    """Returns the statements of a `.sql` file by the name in the comment line above each."""
    parts = (_HERE / file).read_text("utf-8").split("\n-- name: ")[1:]
    named = (part.split("\n", 1) for part in parts)
    return {name: _bare(text) for name, text in named}


def numbered(queries: dict[str, str]) -> dict[str, list[int]]:
    """Takes the numbers of `?1`, `?2` … out of statements; returns for each that has some which value each `?` stands for.

    Python from 3.12 on takes `?1` for a name, and gives a name no value of a sequence.
    """
    written = {name: text for name, text in queries.items() if "?1" in text}
    for name, text in written.items():
        queries[name] = re.sub(_NUMBERED, "?", text)
    return {name: [int(number) - 1 for number in re.findall(_NUMBERED, text)] for name, text in written.items()}


def _bare(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return "\n".join(lines).strip()


def migrations(folder: str) -> dict[int, str]:
    """Returns the script of each migration in a folder by its number, in order."""
    found = [file for file in (_HERE / folder).iterdir() if file.name.endswith(".sql")]
    return {int(file.name[:4]): file.read_text("utf-8") for file in sorted(found, key=lambda file: file.name)}


def statements(script: str) -> list[str]:
    """Splits a script into statements, each of which ends with its line (`executescript` would commit)."""
    found: list[str] = []
    begun = ""
    for line in script.splitlines():
        begun += line + "\n"
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    return found
