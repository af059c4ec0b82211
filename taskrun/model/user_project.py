"""The user's own project: a configuration and a journal that belong to no folder, for `taskrun --user`.

It is like any other project, but its journal is apart from its configuration, and commands are executed in the home folder.
Imports next to nothing, since the thin client asks it too.
"""

import os
from _collections_abc import Mapping

APP = "taskrun"
FILE = "taskrun.toml"
JOBS = "jobs"  # the folder of its job files, beside the configuration
FIRST = """\
# Your own project: `taskrun --user COMMAND ...` from any folder. Commands run in your home folder.

[taskrun]
jobs = ["jobs"]                  # job files, in the folder of this file

# [[schedule]]                   # start a job by the clock: taskrun --user schedule add JOB "0 9 * * *"
"""


def config_folder(environ: Mapping[str, str]) -> str:
    """Returns the folder of its configuration and job files."""
    return os.path.join(_base(environ, "XDG_CONFIG_HOME", ".config"), APP)


def state_folder(environ: Mapping[str, str]) -> str:
    """Returns the folder of its journal."""
    return os.path.join(_base(environ, "XDG_STATE_HOME", os.path.join(".local", "state")), APP)


def home_folder(environ: Mapping[str, str]) -> str:
    """Returns the folder in which its commands are executed."""
    return environ.get("HOME") or os.path.expanduser("~")


def is_user_project(folder: str, environ: Mapping[str, str]) -> bool:
    """Whether the project in a folder is the user's own, however it was found."""
    return os.path.realpath(folder) == os.path.realpath(config_folder(environ))


def make(environ: Mapping[str, str]) -> str:
    """Returns the path of its configuration; what is missing is made, for this user alone.

    Raises:
        OSError: it cannot be made.
    """
    folder = config_folder(environ)
    path = os.path.join(folder, FILE)
    if not os.path.exists(path):
        for each in (folder, os.path.join(folder, JOBS), state_folder(environ)):
            os.makedirs(os.path.dirname(each), 0o700, exist_ok=True)
            os.makedirs(each, 0o700, exist_ok=True)
        _write(path)
    return path


def _write(path: str) -> None:
    """Writes the first configuration as a whole, unless another command has written it meanwhile."""
    draft = f"{path}.{os.getpid()}.tmp"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(FIRST)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)


def _base(environ: Mapping[str, str], name: str, below_home: str) -> str:
    """Returns a base folder of the XDG specification, by which a relative path is invalid and does not count."""
    named = environ.get(name, "")
    return named if os.path.isabs(named) else os.path.join(home_folder(environ), below_home)
