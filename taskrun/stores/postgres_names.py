"""What locks and notifications of a Postgres journal are called: numbers of advisory locks, names of channels."""

from __future__ import annotations

import hashlib

LONGEST = 63  # bytes of a channel's name


def lock_number(schema: str, name: str) -> int:
    """Returns the number of the advisory lock of a name. Two names that share one only wait for each other."""
    digest = hashlib.blake2b(f"{schema}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def all_channel(schema: str) -> str:
    """Returns the channel that every engine of a journal listens to."""
    return _channel(schema, "")


def engine_channel(schema: str, engine: str) -> str:
    """Returns the channel of one engine: something was done to its runs."""
    return _channel(schema, f"engine {engine}")


def job_channel(schema: str, job: str) -> str:
    """Returns the channel of a job: something was written that is to start it."""
    return _channel(schema, f"job {job}")


def ready_channel(schema: str, job: str) -> str:
    """Returns the channel of a job's ready runs: there is one that nobody has."""
    return _channel(schema, f"ready {job}")


def _channel(schema: str, name: str) -> str:
    whole = f"taskrun {schema} {name}".strip()
    if len(whole.encode()) <= LONGEST:
        return whole
    return f"taskrun {hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()}"
