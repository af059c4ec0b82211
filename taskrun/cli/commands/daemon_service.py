"""The daemon as a service of the user's session: a systemd user unit, or a launchd agent on a Mac.

It is written as a text file, and enabled by the session's own tool where there is one. The service runs `taskrun daemon run`, so
`stop`, `start` and `logs` work as usual.
"""

from __future__ import annotations

import asyncio
import hashlib
import plistlib
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from taskrun.daemon.launch import environment, python
from taskrun.model.config import Config

PATIENCE = 20  # seconds for the session's tool
KEPT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "XDG_CONFIG_HOME", "XDG_STATE_HOME")  # as they are now


class Service(NamedTuple):
    """A service: its file, and the commands by which the session reads it (`look`), enables and disables it."""

    path: Path
    text: bytes
    look: list[list[str]]
    on: list[list[str]]
    off: list[list[str]]


def service_of(config: Config, env: Mapping[str, str], platform: str = sys.platform) -> Service:
    """Returns the service of a project on this platform."""
    return (_agent if platform == "darwin" else _unit)(config, env)


def _unit(config: Config, env: Mapping[str, str]) -> Service:
    home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or Path.home()) / ".config")
    name = f"taskrun-{_slug(config)}.service"
    variables = "".join(f"Environment={_quoted(f'{key}={value}')}\n" for key, value in _environment(env).items())
    text = f"""\
# Written by `taskrun daemon install` for {_line(config.root)}
[Unit]
Description=taskrun in {_percent(_line(config.root))}

[Service]
ExecStart={" ".join(_quoted(part).replace("$", "$$") for part in _command(config))}
WorkingDirectory={_percent(_line(config.root))}
{variables}Restart=on-failure
RestartSec=1
KillMode=process
TimeoutStopSec={config.grace + 15:.0f}

[Install]
WantedBy=default.target
"""
    control = ["systemctl", "--user"]
    look, on, off = [[*control, "daemon-reload"]], [[*control, "enable", "--now", name]], [[*control, "disable", name]]
    return Service(home / "systemd" / "user" / name, text.encode(), look, on, off)


def _agent(config: Config, env: Mapping[str, str]) -> Service:
    name = f"dev.taskrun.{_slug(config)}"
    path = Path(env.get("HOME") or Path.home()) / "Library" / "LaunchAgents" / f"{name}.plist"
    wanted = {
        "Label": name,
        "ProgramArguments": _command(config),
        "WorkingDirectory": str(config.root),
        "EnvironmentVariables": _environment(env),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": round(config.grace + 15),
    }
    on, off = ["launchctl", "load", "-w", str(path)], ["launchctl", "unload", "-w", str(path)]
    return Service(path, plistlib.dumps(wanted), [], [on], [off])


def _command(config: Config) -> list[str]:
    return [*python("taskrun"), "daemon", "run", "--config", str(config.path)]


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    found = {**environment({}), **env}
    return {key: found[key] for key in KEPT if found.get(key)}


def _slug(config: Config) -> str:
    """Returns a name that can be recognised, and that no other project has."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", config.root.name).strip("-") or "project"
    return f"{plain[:40]}-{hashlib.sha256(str(config.path).encode()).hexdigest()[:6]}"


def _quoted(part: str) -> str:
    """Returns a word, quoted for a unit file."""
    escaped = part.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{_percent(escaped)}"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _line(path: Path) -> str:
    return str(path).replace("\n", " ")


async def switch(commands: list[list[str]]) -> str:
    """Runs commands of the session's tool; returns its error message, or nothing when they succeeded."""
    for command in commands:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError:
            return f"there is no {command[0]} here"
        try:
            async with asyncio.timeout(PATIENCE):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"{shlex.join(command)} did not end"
        if process.returncode:
            return said.decode(errors="replace").strip() or f"{shlex.join(command)} ended with {process.returncode}"
    return ""
