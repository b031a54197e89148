"""Packs: sealed, read-only parts of a database that a device searches beside its own."""

from delf_edge._old_paths import forward

__getattr__ = forward(__name__, "packs.manifest")
