"""How often the garbage collector looks, in commands, the daemon and its workers: almost nothing that they make is in a cycle."""

import gc

THRESHOLD = 10_000  # objects more than at the last collection; 700 is Python's own


def collect_rarely() -> None:
    """Collects less often, and never again what is there now: the modules of taskrun and of the jobs."""
    gc.freeze()
    gc.set_threshold(THRESHOLD)
