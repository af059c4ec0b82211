"""What a plain call of users' code may raise: everything but Ctrl-C, which is meant for the whole process."""

from __future__ import annotations

import asyncio

RAISED = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)
