"""Recognise places offline: a photo goes in, the landmark it shows comes out, with the matched points as proof."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time they are imported when first asked for: `delf-edge --help` needs no numpy
    from delf_edge.asking import Explanation, IdentifyOptions
    from delf_edge.bundle import Bundle, default_bundle_path
    from delf_edge.candidates import SearchOptions
    from delf_edge.errors import (
        BundleError,
        BundleIntegrityError,
        BundleMismatchError,
        BundleVersionError,
        CorruptRowError,
        DelfEdgeError,
        EngineError,
        ImageDecodeError,
        ImageError,
        ImageTooLargeError,
        NotADatabaseError,
        NotFoundError,
        OptionError,
        ReadOnlyError,
        SchemaVersionError,
        StoreBusyError,
        StoreError,
        StoreFullError,
    )
    from delf_edge.recognizer import AddError, AddItem, AddResult, Recognizer
    from delf_edge.types import Answer, Features, Image, Match, Verification
    from delf_edge.verification import VerifyOptions

__version__ = "0.1.0"

__all__ = [
    "AddError",
    "AddItem",
    "AddResult",
    "Answer",
    "Bundle",
    "BundleError",
    "BundleIntegrityError",
    "BundleMismatchError",
    "BundleVersionError",
    "CorruptRowError",
    "DelfEdgeError",
    "EngineError",
    "Explanation",
    "Features",
    "IdentifyOptions",
    "Image",
    "ImageDecodeError",
    "ImageError",
    "ImageTooLargeError",
    "Match",
    "NotADatabaseError",
    "NotFoundError",
    "OptionError",
    "ReadOnlyError",
    "Recognizer",
    "SchemaVersionError",
    "SearchOptions",
    "StoreBusyError",
    "StoreError",
    "StoreFullError",
    "Verification",
    "VerifyOptions",
    "__version__",
    "default_bundle_path",
]

_HOMES = {
    "asking": "Explanation IdentifyOptions",
    "bundle": "Bundle default_bundle_path",
    "candidates": "SearchOptions",
    "errors": (
        "BundleError BundleIntegrityError BundleMismatchError BundleVersionError CorruptRowError "
        "DelfEdgeError EngineError ImageDecodeError ImageError ImageTooLargeError NotADatabaseError "
        "NotFoundError OptionError ReadOnlyError SchemaVersionError StoreBusyError StoreError "
        "StoreFullError"
    ),
    "recognizer": "AddError AddItem AddResult Recognizer",
    "types": "Answer Features Image Match Verification",
    "verification": "VerifyOptions",
}


if not TYPE_CHECKING:  # a type checker must not take any name for a public one

    def __getattr__(name: str) -> Any:
        """Import a public name from its module on first use (PEP 562)."""
        for module, names in _HOMES.items():
            if name in names.split():
                value = getattr(importlib.import_module(f"delf_edge.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'delf_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
