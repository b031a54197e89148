"""The table meta: which database this is, and which bundle and sizes of codes it was made for."""

from __future__ import annotations

import time
import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from delf_edge.errors import BundleMismatchError, NotADatabaseError, OptionError, ReadOnlyError
from delf_edge.quantization.packed_codes import CodeLayout

_SIZES = tuple(CodeLayout.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """What the table meta says that does not change while a database is open.

    Attributes:
        bundle_id: the bundle its codes were made with.
        uuid: identity of the database; a copy has the same.
        layout: sizes of its codes.
        sealed: it may not be written any more.
    """

    bundle_id: str
    uuid: str
    layout: CodeLayout
    sealed: bool

    @classmethod
    def parse(cls, meta: Mapping[str, str], path: Path) -> StoreMeta:
        """The rows of the table meta of `path`, by key.

        Raises:
            NotADatabaseError: one is missing or no number.
        """
        try:
            layout = CodeLayout(*(int(meta[size]) for size in _SIZES))
            int(meta["revision"])  # must be a number, too
            return cls(meta["bundle_id"], meta["uuid"], layout, meta["sealed"] == "1")
        except (KeyError, ValueError, OptionError) as e:
            raise NotADatabaseError(f"{path}: its table meta is incomplete or damaged at {e}") from e

    def require(self, path: Path, bundle_id: str | None, layout: CodeLayout | None, *, writable: bool) -> None:
        """Refuse a database that is not what was asked for; None accepts any.

        Raises:
            BundleMismatchError: it was made with another bundle, or for other sizes.
            ReadOnlyError: it is sealed, and was to be written.
        """
        if (bundle_id is not None and bundle_id != self.bundle_id) or (layout is not None and layout != self.layout):
            raise BundleMismatchError(
                f"{path}: made with bundle {self.bundle_id} ({self.layout}), the loaded bundle is {bundle_id} "
                f"({layout}); open it with --bundle, or rebuild it with `delf-edge index`"
            )
        if self.sealed and writable:
            raise ReadOnlyError(f"{path}: sealed; open it read-only, or make a writable copy with `delf-edge snapshot`")


def new_meta(bundle_id: str, layout: CodeLayout) -> dict[str, str]:
    """The rows of the table meta of a new database, by key."""
    return {
        "bundle_id": bundle_id,
        "uuid": str(uuids.uuid4()),
        "created_at": f"{time.time():.3f}",
        **{size: str(getattr(layout, size)) for size in _SIZES},
        "revision": "0",
        "pruned": "0",
        "sealed": "0",
    }
