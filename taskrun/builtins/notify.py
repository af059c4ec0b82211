"""The job `notify`: tells one person one thing in one way. The core starts it for what `[[notify]]` asks for."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta

from taskrun.builtins.webhook import post, signed
from taskrun.declarations.job import job as declare_job
from taskrun.declarations.steps import run as run_step
from taskrun.declarations.steps import shell
from taskrun.model.names import NOTIFY
from taskrun.model.notify_config import FIELDS, TEST, Way
from taskrun.model.templates import in_shell, parse_template
from taskrun.rules.policies import Backoff

RETRIES = 5
PATIENCE = "1m"
URGENT = {"failed", "missed"}
Hidden = Annotated[dict[str, Any], Meta(extra_json_schema={"writeOnly": True})]


@declare_job(
    name=NOTIFY,
    retry=lambda input: 0 if input["event"] == TEST else RETRIES,
    backoff=Backoff("10s", max="1h"),
    priority=100,
)
async def notify(
    title: str,
    text: str,
    to: str,
    event: str,
    at: str,
    way: Hidden,
    job: str | None = None,
    run: str | None = None,
    status: str | None = None,
    reason: str | None = None,
    error: dict[str, Any] | None = None,
) -> str:
    """Tells somebody what has happened: on the desktop, by a command, or by a webhook."""
    told = {"event": event, "job": job, "run": run, "status": status, "reason": reason, "error": error}
    body = json.dumps({**told, "title": title, "text": text, "at": at}, ensure_ascii=False)
    if "webhook" in way:
        secret = way.get("secret")
        signature = None if secret is None else signed(body.encode(), secret, os.environ)
        return str(await run_step("webhook", post, way["webhook"], body.encode(), signature, retry=0, timeout=PATIENCE))
    if "command" in way:
        values = {"title": title, "text": text, "run": run or "", "job": job or "", "event": event}
        command = in_shell(parse_template(way["command"], FIELDS), values)
        await shell(command, name="command", stdin=f"{body}\n", timeout=PATIENCE)
    else:
        await shell(_desktop(title, text, event), name="desktop", timeout=PATIENCE)
    return "told"


def test_message(way: Way, project: str, now: float) -> dict[str, Any]:
    """Returns the input of a run that tries a way."""
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    told = {"event": TEST, "at": at, "title": "taskrun: a test", "text": f"Notifications of {project} arrive."}
    return {**told, "to": way.label, "way": way.target()}


def _desktop(title: str, text: str, event: str, platform: str = sys.platform) -> list[str]:
    """Returns the command that shows a notification of the desktop."""
    if platform == "darwin":
        script = "display notification (item 2 of argv) with title (item 1 of argv)"
        return ["osascript", "-e", "on run argv", "-e", script, "-e", "end run", title, text]
    urgency = "critical" if event in URGENT else "normal"
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # it may be read as markup
    return ["notify-send", "--app-name=taskrun", f"--urgency={urgency}", "--", title, escaped]
