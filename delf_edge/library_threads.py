"""How many threads the numerical libraries beneath may start.

They read it from the environment when they are imported, and start one for each core where nothing is said. The
matrices of one question are small, so such threads mostly wait for work, and waiting takes processor time: on two
cores, twice as much for a photo as one thread takes.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_cores() -> int:
    """Cores that this process may run on; all of the machine where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit(environment: MutableMapping[str, str], n: int) -> None:
    """Allow n threads, or as many as the process has cores, where the environment does not say a number itself.

    Args:
        environment: `os.environ` before NumPy is imported, or the environment of a child process.
        n: threads.
    """
    for name in VARIABLES:
        environment.setdefault(name, str(min(n, usable_cores())))
