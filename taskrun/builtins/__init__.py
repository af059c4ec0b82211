"""Jobs that come with taskrun. They use its public API like a user's; the engine knows nothing of them."""

from taskrun.builtins.any_command import any_command
from taskrun.builtins.each import each
from taskrun.builtins.notify import notify
from taskrun.declarations.job import Job

JOBS: tuple[Job, ...] = (any_command, each, notify)  # their names are in `model.names.RESERVED`
