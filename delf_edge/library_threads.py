"""How many threads the numerical libraries beneath may start.

They read it from the environment when they are imported, and start one for each core where nothing is said. The
matrices of one question are small, so such threads mostly wait for work, and waiting takes processor time: on two
cores, twice as much for a photo as one thread takes.
"""

from __future__ import annotations

import os

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit(environment: os._Environ[str] | dict[str, str], n: int) -> None:
    """Allow n threads, or as many as the process has cores, where the environment does not say a number itself.

    Args:
        environment: `os.environ` before NumPy is imported, or the environment of a child process.
        n: threads.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in VARIABLES:
        environment.setdefault(name, str(min(n, cores)))
