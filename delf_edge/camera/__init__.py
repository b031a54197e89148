"""Frames in, steady answers out: sources, frame gate, temporal voting, events."""

from delf_edge._old_paths import forward

__getattr__ = forward(__name__, "camera.watcher", "camera.worker", "camera.sources")
