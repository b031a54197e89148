"""Recognise places offline: a photo goes in, the landmark it shows comes out, with the matched points as proof.

The public names are listed once, in `__init__.pyi`; each is imported when it is first asked for, so that
`delf-edge --help` needs no numpy.
"""

import lazy_loader

from delf_edge import _old_paths

__version__ = "0.2.0"

__getattr__, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*_names, "__version__"]


def __dir__() -> list[str]:
    return __all__


_old_paths.install()
