"""The module names of 0.1 as aliases, with a `DeprecationWarning`, until 0.3.

An import of an old name finds the new module.
A module that became a folder of the same name (`delf_edge.images`, `delf_edge.camera`, ...) forwards what it had.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import warnings

TYPE_CHECKING = False  # `typing` and `collections.abc` cost a twentieth of `import delf_edge`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

_ADVICE = "it works until 0.3"

# Old module: where its names are now; the first one that has a name gives it.
MOVED: dict[str, tuple[str, ...]] = {
    "building": ("distributed",),
    "fitting": ("codebooks",),
    "position": ("geo",),
    "gate": ("camera.frame_gate", "images.quality"),
    "decision": ("bundle.calibration",),
    "pyramid": ("features.pyramid",),
    "engine": ("features.network",),
    "coarse": ("quantization.coarse_quantizer",),
    "codec": ("quantization.product_quantizer", "quantization.packed_codes"),
    "lists": ("index.inverted_lists",),
    "candidates": ("index.inverted_index", "index.search"),
    "scan": ("index.scoring", "index.asmk"),
    "index_file": ("index.index_file",),
    "slots": ("index.slots",),
    "store": ("storage.store",),
    "database": ("storage.schema", "storage.sqlite"),
    "connection": ("storage.sqlite",),
    "rows": ("storage.rows",),
    "edits": ("storage.write_transaction",),
    "upkeep": ("storage.maintenance",),
    "records": ("storage.records",),
    "shelf": ("storage.combined",),
    "fitting.clustering": ("codebooks.kmeans", "codebooks.opq"),
    "fitting.projections": ("codebooks.projections",),
    "fitting.parts": ("codebooks.partitions",),
    "fitting.codebooks": ("codebooks.fit",),
    "fitting.packing": ("codebooks.bundle_writer",),
    "cutting": ("packs.create",),
    "installed": ("packs.installed",),
    "following": ("packs.live",),
    "listing": ("interchange.photo_lists", "interchange.photo_entry"),
    "building.listing": ("interchange.photo_tables", "interchange.photo_entry"),
    "asking": ("query.pipeline", "query.options"),
    "evidence": ("query.ranking",),
    "expansion": ("query.query_expansion",),
    "building.shards": ("distributed.shards", "distributed.remote_files"),
    "building.careful": ("distributed.isolation",),
    "building.cluster": ("distributed.cluster",),
    "building.merging": ("distributed.merging",),
    "building.whole": ("distributed.build",),
    "building.raw": ("distributed.raw_features",),
    "building.codebook": ("distributed.codebook",),
    "building.fitting": ("distributed.partitioned_fit",),
    "sources": ("camera.sources", "camera.live", "camera.recorded"),
    "voting": ("camera.temporal_voting",),
    "doctor": ("diagnostics.doctor", "diagnostics.machine"),
    "bench": ("diagnostics.speed",),
    "quality": ("diagnostics.reference_quality",),
    "explain": ("diagnostics.match_drawing",),
    "updates.channel": ("updates.publisher",),
    "updates.device": ("updates.client",),
    "updates.fetching": ("updates.fetcher",),
    "updates.selftest": ("updates.self_test",),
    "web.hub": ("web.event_stream", "web.sessions"),
    "web.jobs": ("web.work_queue",),
    "web.guard": ("web.security",),
    "terminal": ("cli.common", "cli.output", "cli.main"),
    "shipping_commands": ("cli.packs",),
    "batch_commands": ("cli.distributed", "cli.interchange"),
}

# Names that changed with their modules: the old one and the new one.
RENAMED: dict[str, tuple[str, ...]] = {
    "Asker": ("QueryPipeline",),
    "CandidateIndex": ("InvertedIndex",),
    "Edit": ("WriteTransaction",),
    "Evidence": ("CandidateRanking",),
    "FORMAT": ("BUNDLE_FORMAT", "PACK_FORMAT", "EXPORT_FORMAT", "CHANNEL_FORMAT", "SPEED_FORMAT"),
    "Following": ("LivePacks",),
    "IntArray": ("Int64Array",),
    "ListedPhoto": ("PhotoEntry",),
    "ListedRow": ("PhotoEntry",),
    "Look": ("FrameMeasures",),
    "Rows": ("CheckedRows",),
    "Shelf": ("CombinedStore",),
    "Source": ("CodeSource",),
    "State": ("IndexSnapshot",),
    "View": ("PackSnapshot",),
    "make_shard_carefully": ("make_shard_isolated",),
    "merge": ("merge_segments", "merge_shards"),
    "project": ("project_descriptors",),
    "Report": ("UpdateReport",),
    "connect": ("connect_cluster",),
    "describe": ("describe_pack",),
    "golden_image": ("make_golden_image",),
    "measure": ("measure_speed",),
    "read_manifest": ("load_manifest", "verified_manifest", "read_photo_list"),
    "self_test": ("prove_pack",),
}


class _Finder:
    """Asked after all others, so it sees only names that no file has. (`importlib.abc` costs 60 ms of start.)"""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "delf_edge" or name not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(MOVED[name]), is_package=True)  # type: ignore[arg-type]


class _Loader:
    def __init__(self, homes: tuple[str, ...]) -> None:
        self._homes = homes

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """The ordinary empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and give the names of the new modules on demand."""
        new = " and ".join(f"delf_edge.{home}" for home in self._homes)
        warnings.warn(f"{module.__name__} is now {new}; {_ADVICE}", DeprecationWarning, stacklevel=2)
        module.__dict__["__getattr__"] = _lookup(module.__name__, self._homes)


def forward(package: str, *homes: str) -> Callable[[str], Any]:
    """`__getattr__` of a package that was a module: its old names come from `homes`, with a warning."""
    lookup = _lookup(package, homes)

    def get(name: str) -> Any:
        value = lookup(name)
        if not isinstance(value, type(sys)):
            warnings.warn(
                f"{package}.{name} is now {value_home(value, homes)}.{name}; {_ADVICE}",
                DeprecationWarning,
                stacklevel=2,
            )
        return value

    return get


def value_home(value: Any, homes: tuple[str, ...]) -> str:
    """The module that a forwarded value is to be imported from."""
    return str(getattr(value, "__module__", f"delf_edge.{homes[0]}"))


def install() -> None:
    """Let old names be found; once is enough."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def _lookup(module: str, homes: tuple[str, ...]) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        if not name.startswith("__"):
            for home in homes:
                found = importlib.import_module(f"delf_edge.{home}")
                for now in (name, *RENAMED.get(name, ())):
                    if hasattr(found, now):
                        return getattr(found, now)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get
