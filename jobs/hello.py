"""The smallest job there is: `taskrun run hello --name you`."""

from __future__ import annotations

from taskrun import job


@job
async def hello(name: str = "world") -> str:
    """Greets somebody."""
    print(f"greeting {name}")
    return f"Hello, {name}!"
