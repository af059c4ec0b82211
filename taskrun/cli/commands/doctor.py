"""`taskrun doctor`: checks that everything is as it should be, and says what to do where it is not."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.commands.doctor_checks import Check, check_view, examine
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code
from taskrun.cli.lazy_imports import Text
from taskrun.cli.project_option import for_project
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.look import Look, hanging, mark
from taskrun.cli.session import Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)
NAMES = 15  # columns of a check's name


@app.command()
def doctor(json: bool = COMMON.json) -> Any:
    """Check configuration, socket, daemon, journal and jobs; say what to type where something is wrong.

    Changes nothing. Exit code 1 when something is wrong.

    Example: taskrun doctor
    """
    return partial(perform, json)


async def perform(as_json: bool, session: Session) -> int:
    """Shows each check as it is done."""
    found: list[Check] = []
    async for check in examine(session):
        found.append(check)
        if not as_json:
            session.show(check_line(check, session.look()))
    bad = [check.check for check in found if not check.ok]
    if as_json:
        session.json([check_view(check) for check in found])
    else:
        session.say(f"problems: {', '.join(bad)}" if bad else "no problems found")
    return Code.FAILED if bad else Code.DONE


def check_line(check: Check, look: Look) -> Text:
    """Returns a check as a line, and its hint as another."""
    head = mark("succeeded" if check.ok else "failed", look).append(f" {check.check:<{NAMES}}", "bold")
    hint = [Text(f"→ {for_project(cell(check.hint), look.project)}", "dim" if check.ok else "")] if check.hint else []
    return hanging(head, [Text(cell(check.text)), *hint], look)
