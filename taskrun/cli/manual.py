"""`python -m taskrun.cli.manual > docs/cli.md`: the manual of the command line, made from the commands themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from taskrun.cli.app import app
from taskrun.cli.command_table import COMMANDS, HIDDEN, find
from taskrun.cli.exit_codes import CODES

WIDTH = 100
HEAD = """\
# The command line

Made from the commands themselves by `python -m taskrun.cli.manual > docs/cli.md`; `taskrun COMMAND --help` says the same.

Data goes to standard output, chatter and a followed log to standard error. `--json` prints one JSON document (a line each
for what streams) and nothing else. Into a pipe, tables are tab-separated, without header or colour, with whole ids.
`--config FILE` may stand anywhere. `taskrun --user COMMAND` means your own project, whatever the current folder is.

RUN is an id, a unique prefix or suffix of one (4 characters or more), `@last` (the newest run that is no child, and no
notification), or `JOB@last`.
"""


def manual() -> str:
    """Returns the whole page."""
    commands = dict(_commands())
    rows = [
        f"| [`taskrun {name}`](#taskrun-{name.replace(' ', '-')}) | {_first(one)} |" for name, one in commands.items()
    ]
    codes = [f"| {int(code)} | {text} |" for code, text in CODES.items()]
    parts = [HEAD, "| command | does |\n| --- | --- |\n" + "\n".join(rows) + "\n"]
    parts += ["## Exit codes\n", "| code | means |\n| --- | --- |\n" + "\n".join(codes) + "\n"]
    parts += [f"## taskrun {name}\n\n```text\n{_help(name, command)}\n```\n" for name, command in commands.items()]
    return "\n".join(parts)


def _commands() -> Iterator[tuple[str, Any]]:
    for name in COMMANDS:
        if name in HIDDEN:
            continue
        command = find(name)
        inner = getattr(command, "commands", None)
        if not inner or command.invoke_without_command:
            yield name, command
        yield from ((f"{name} {one}", sub) for one, sub in (inner or {}).items())


def _first(command: Any) -> str:
    return str(command.help).partition("\n")[0]


def _help(name: str, command: Any) -> str:
    root = get_command(app)
    with root.make_context("taskrun", [], resilient_parsing=True) as above:
        context = type(above)(command, parent=above, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
        return "\n".join(line.rstrip() for line in str(command.get_help(context)).splitlines())


if __name__ == "__main__":
    sys.stdout.write(manual())
