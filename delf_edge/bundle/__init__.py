"""Model bundles: the folder, its manifest, and the weights of the answer."""

from delf_edge._old_paths import forward

__getattr__ = forward(__name__, "bundle.bundle", "bundle.manifest")
