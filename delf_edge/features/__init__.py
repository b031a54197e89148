"""From an image to `Features`: pyramid, network, selection, projection."""

from delf_edge._old_paths import forward

__getattr__ = forward(__name__, "features.extractor", "arrays")
