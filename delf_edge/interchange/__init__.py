"""What other programs write and read: lists and tables of photos, Parquet, GeoJSON."""

from delf_edge._old_paths import forward

__getattr__ = forward(__name__, "interchange.parquet")
