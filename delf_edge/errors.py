"""Every error the SDK raises, in one tree.

::

    DelfEdgeError
    ├── ImageError                   a photo cannot be used (also ValueError)
    │   ├── ImageDecodeError         not an image, truncated, or an unsupported form
    │   └── ImageTooLargeError       its header declares more pixels than the cap
    ├── BundleError                  a model bundle cannot be used
    │   ├── BundleIntegrityError     a file is missing or its SHA-256 differs
    │   └── BundleVersionError       the manifest's format is newer than this SDK
    ├── EngineError                  LiteRT / tflite-runtime is absent or refused the model
    ├── StoreError                   a database cannot be used
    │   ├── NotADatabaseError        the file is something else, or cut off
    │   ├── SchemaVersionError       the schema is newer than this SDK
    │   ├── BundleMismatchError      the database was made with another bundle
    │   ├── CorruptRowError          a row's CRC32 differs
    │   ├── StoreBusyError           another process holds the write lock
    │   ├── StoreFullError           no space is left on the device
    │   └── ReadOnlyError            the medium or the opening mode forbids writing
    ├── PackError                    a pack cannot be used
    │   └── PackIntegrityError       its bytes, or those of its manifest, are not what they were made as
    ├── UpdateError                  an update could not be had; what is installed stays in use
    │   └── UpdateRefusedError       it is tampered with, older, expired, signed by somebody else, or failed its test
    ├── CameraError                  a camera, video or folder of frames cannot be used
    ├── BuildError                   a distributed build cannot go on
    ├── NotFoundError                no such image or landmark (also KeyError)
    └── OptionError                  an option has a value outside its range (also ValueError)
        └── NameTakenError           another photo has this name

A message names both sides (what was found, what was expected) and the remedy.
"""

from __future__ import annotations


class DelfEdgeError(Exception):
    """Base of every error that delf-edge raises on purpose."""


class ImageError(DelfEdgeError, ValueError):
    """A photo cannot be used."""


class ImageDecodeError(ImageError):
    """The bytes are not an image, are truncated, or have an unsupported form."""


class ImageTooLargeError(ImageError):
    """The image's header declares more pixels than the cap allows."""


class BundleError(DelfEdgeError):
    """A model bundle cannot be used."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, or its SHA-256 is not the manifest's."""


class BundleVersionError(BundleError):
    """The bundle's format version is newer than this SDK understands."""


class EngineError(DelfEdgeError):
    """The TFLite runtime is missing or refused the model."""


class StoreError(DelfEdgeError):
    """A database cannot be used."""


class NotADatabaseError(StoreError):
    """The file is not a delf-edge database, or it is cut off or malformed."""


class SchemaVersionError(StoreError):
    """The database's schema is newer than this SDK understands."""


class BundleMismatchError(StoreError):
    """The database was built with another model bundle."""


class CorruptRowError(StoreError):
    """A stored row does not have the CRC32 it was written with."""


class StoreBusyError(StoreError):
    """Another connection held the write lock longer than the busy timeout."""


class StoreFullError(StoreError):
    """The disk is full; the transaction was rolled back."""


class ReadOnlyError(StoreError):
    """The database is open read-only, or it lies on read-only media."""


class PackError(DelfEdgeError):
    """A pack cannot be used."""


class PackIntegrityError(PackError):
    """A pack's bytes, or those of its manifest, are not what they were made as."""


class UpdateError(DelfEdgeError):
    """An update could not be had; what is installed stays in use."""


class UpdateRefusedError(UpdateError):
    """An update is tampered with, older, expired, signed by somebody else, or failed its self-test."""


class CameraError(DelfEdgeError):
    """A camera or a video cannot be opened."""


class BuildError(DelfEdgeError):
    """A distributed build cannot go on."""


class NotFoundError(DelfEdgeError, KeyError):
    """No such image or landmark."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class OptionError(DelfEdgeError, ValueError):
    """An option has a value outside its range."""


class NameTakenError(OptionError):
    """Another photo has this name; nothing was stored."""
