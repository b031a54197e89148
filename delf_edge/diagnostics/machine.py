"""What this machine is: processor, memory, versions. One description for `doctor`, `bench` and the benchmarks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
from pathlib import Path

from delf_edge import native
from delf_edge.errors import EngineError
from delf_edge.features.network import runtime_version
from delf_edge.library_threads import usable_cores

_DISTRIBUTIONS = ("delf-edge", "numpy", "opencv-python-headless", "hnswlib", "ai-edge-litert", "tflite-runtime")


def library_versions() -> dict[str, str]:
    """Library -> version, "absent" where it is not installed, and which runtime is in use."""
    found = {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    try:
        found["runtime in use"] = " ".join(runtime_version())
    except EngineError as e:
        found["runtime in use"] = f"none ({e})"
    return found


def describe_machine(num_threads: int) -> dict[str, str]:
    """System, processor, cores, memory, and the forms of the hot loops."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": f"{usable_cores()} of {os.cpu_count()} usable",
        "threads of the network": str(num_threads),
        "candidate search": _search_form(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
    }


def _search_form() -> str:
    """Whether the hot loops are the compiled ones."""
    if native.library() is not None:
        return "compiled"
    return (
        "NumPy, several times slower: delf-edge was installed without a C++ compiler; install one and then "
        "`pip install --force-reinstall --no-deps delf-edge`"
    )


def processor() -> str:
    """Name of the processor; Linux tells it in a text file, on ARM boards in the device tree."""
    for path, label in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(label):
                return line.split(":", 1)[-1].strip(" \t\0")
    return platform.processor() or "unknown"
