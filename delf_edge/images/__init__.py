"""Photos: bytes and arrays become `Image`; how sharp and how well lit a picture is."""

from delf_edge._old_paths import forward

__getattr__ = forward(__name__, "images.decode", "images.photo_source", "images.limits", "images.headers")
