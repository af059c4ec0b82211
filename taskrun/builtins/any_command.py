"""The job `exec`: runs any command as a durable run. Its settings come with the input, since each run has its own."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from taskrun.declarations.job import job
from taskrun.declarations.steps import shell
from taskrun.model.group_config import limit_id
from taskrun.model.names import EXEC
from taskrun.rules.policies import Concurrency

Hidden = Annotated[dict[str, str], msgspec.Meta(extra_json_schema={"writeOnly": True})]
STEP = "command"


def _concurrency(given: dict[str, Any]) -> Concurrency | None:
    return None if given["group"] is None else Concurrency(limit_id(given["group"]), given["slots"])


@job(
    name=EXEC,
    retry=lambda given: given["retry"],
    timeout=lambda given: given["timeout"],
    priority=lambda given: given["priority"],
    concurrency=_concurrency,
)
async def any_command(
    command: str | list[str],
    cwd: str,
    path: str | None = None,
    env: Hidden = {},  # noqa: B006
    group: str | None = None,
    slots: int = 1,
    retry: int = 0,
    timeout: float | None = None,
    priority: int = 0,
    rerun: bool = True,
) -> str:
    """Runs a command; a text goes to the shell.

    Parameters:
        path: `PATH` of whoever typed it.
        env: added to the worker's environment.
        group: its runs take turns, `slots` at once.
        rerun: whether the command is begun again when it was cut off.
    """
    variables = {**({} if path is None else {"PATH": path}), **env}
    done = await shell(command, name=STEP, cwd=cwd, env=variables, survive=True, rerun=rerun)
    return done.stdout.removesuffix("\n")
