"""The command line: `delf-edge`."""

from delf_edge._old_paths import forward

__getattr__ = forward(__name__, "cli.main", "cli.common", "cli.output")
