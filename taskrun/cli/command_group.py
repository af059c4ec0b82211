"""How help lists the commands of a group: with their whole summaries, wrapped instead of cut."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

WHOLE = 1_000  # characters of a summary; click cuts it at the width of the screen


class CommandGroup(TyperGroup):
    """A group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands with their summaries."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(WHOLE)) for name, command in found if command and not command.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
