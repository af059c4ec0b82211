"""A wrong command line is explained in plain words, whatever the parser calls it."""

from __future__ import annotations

import pytest

from taskrun.cli.exit_codes import Code
from tests.cli.fakes import FakeDaemon, FakeTerminal, typed


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("list -n 0", "-n / --limit: must be 1 or more, not 0"),
        ("list -n x", '-n / --limit: "x" is not an integer'),
        ("exec --slots x -- a", '--slots: "x" is not an integer'),
        ("tail -n -1", "-n / --lines: must be 0 or more, not -1"),
        ("list --jobb x", "there is no option --jobb; did you mean --job, --json?"),
        ("list --user", "--user stands before the command, as in taskrun --user list"),
        ("doctor --user", "--user stands before the command, as in taskrun --user list"),
        ("doctor --grep x", "there is no option --grep"),
        ("list --json=3", "--json takes no value"),
        ("list --job", "--job needs a value\n  see its usage: taskrun list --help"),
        ("wait", "RUN is missing"),
        ("daemon", "name one of its commands\n  see its usage: taskrun daemon --help"),
        ("notify", "name one of its commands\n  see its usage: taskrun notify --help"),
        ("why a b", "unexpected argument: b"),
        ("daemon frob", 'no command "frob"'),
        ("schedule add hello", 'say when, as in "0 3 * * *"'),
        ("send", "name a pipe; taskrun jobs lists them"),
    ],
)
async def test_a_wrong_line(line: str, said: str, pipe: FakeTerminal) -> None:
    assert await typed(line, pipe, FakeDaemon()) == Code.USAGE
    assert pipe.chatter.startswith(f"error: {said}\n"), pipe.chatter
