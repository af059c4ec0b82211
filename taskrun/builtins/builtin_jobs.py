"""The jobs that come with taskrun. The engine runs them like any other; a few screens and notices know them by name."""

from taskrun.builtins.any_command import any_command
from taskrun.builtins.each import each
from taskrun.builtins.notify import notify
from taskrun.declarations.job import Job

JOBS: tuple[Job, ...] = (any_command, each, notify)  # their names are in `model.names.RESERVED`
