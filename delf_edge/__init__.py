"""Recognise places offline: a photo goes in, the landmark it shows comes out, with the matched points as proof.

The public names are listed once, in `__init__.pyi`; each is imported when it is first asked for, so that
`delf-edge --help` needs no numpy. (lazy_loader does the same, but parsing the list as Python and what it imports are a
fifth of the time of `import delf_edge`.)
"""

import importlib
import os

from delf_edge import _old_paths

__version__ = "0.2.0"


def _read_stub() -> dict[str, str]:
    """Public name -> its module, of the lines `from .module import Name as Name` of the stub."""
    homes = {}
    with open(os.path.join(os.path.dirname(__file__), "__init__.pyi"), encoding="utf-8") as file:
        listed = file.read().partition("\n__version__")[0]
    for statement in listed.split("\nfrom ")[1:]:
        module, _, names = statement.partition(" import ")
        for name in names.strip("()\n").split(","):
            if name.strip():
                homes[name.split()[-1]] = module
    return homes


_HOMES = _read_stub()
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value  # the next time it is found at once
    return value


def __dir__() -> list[str]:
    return __all__


_old_paths.install()
