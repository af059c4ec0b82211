"""What tests ask a daemon for, as its clients."""

from __future__ import annotations

import json
from typing import Any

from taskrun.daemon.client import Client


def start(client: Client, job: str, **input: Any) -> str:
    """Starts a job; returns the id of its run."""
    return str(client.call("start", job=job, input=json.dumps(input))["run"]["id"])


def ended(client: Client, run: str) -> dict[str, Any]:
    """Returns a run as it ended."""
    (view,) = client.stream("wait", runs=[run])
    assert isinstance(view, dict)
    return view
