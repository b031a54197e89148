"""Every row of the table by name, built only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.systems.base import System
from benchmarks.systems.global_descriptors import EXPANSIONS, EmbeddingSystem, Expansion, GlobalSystem
from benchmarks.systems.local import LocalOptions, LocalSystem

if TYPE_CHECKING:
    from delf_edge.bundle.bundle import Bundle

RUNTIME = "delf-edge"  # measured by `systems.runtime`, not by an adapter
PEERS = ("RootSIFT", "ORB", "XFeat", "mobile embedding")
POOLINGS = ("MAC", "R-MAC", "GeM")
DELF = "DELF"
FUSED = "DELF + GeM"
FUSED_QE = "DELF + GeM + QE"


def names(extra_bundles: tuple[str, ...] = ()) -> list[str]:
    """Rows in the table's order; `extra_bundles` are names of further bundles, two rows each."""
    rows = [f"{p}{e.label}" for p in POOLINGS for e in EXPANSIONS]
    rows += [*PEERS, *(f"{DELF} ({b})" for b in extra_bundles), DELF, FUSED, FUSED_QE]
    return [*rows, *(f"{RUNTIME} ({b})" for b in extra_bundles), RUNTIME]


def needs_bundle(name: str) -> bool:
    """Whether a row's figures depend on the bundle."""
    return name not in PEERS


def sharing(rows: Sequence[str]) -> list[list[str]]:
    """Rows that use the same extracted features, together: one of them extracts for all. The order is kept."""
    groups: dict[str, list[str]] = {}
    for name in rows:
        pooled, delf = name.startswith(POOLINGS), name in (DELF, FUSED, FUSED_QE)
        groups.setdefault("pooled" if pooled else DELF if delf else name, []).append(name)
    return list(groups.values())


@cache
def load_bundle(folder: Path | None) -> Bundle:
    """The bundle at `folder`, or the default one."""
    from delf_edge.bundle.bundle import Bundle, default_bundle_path

    return Bundle.load(folder or default_bundle_path())


def build(name: str, bundle: Path | None = None, preset: str | None = None) -> System:
    """The system of a row.

    Args:
        name: one of `names()`, except `RUNTIME`.
        bundle: folder of the bundle whose backbone and features are used; None for the default one.
        preset: extraction preset of the DELF rows.

    Raises:
        KeyError: there is no such row.
        NotInstalledError: the row needs an optional package that is missing.
    """
    rows: dict[str, Callable[[], System]] = {
        "RootSIFT": _rootsift,
        "ORB": _orb,
        "XFeat": _xfeat,
        "mobile embedding": _embedding,
        DELF: lambda: _delf(name, bundle, preset, fused=False),
        FUSED: lambda: _delf(name, bundle, preset, fused=True),
        FUSED_QE: lambda: _delf(name, bundle, preset, fused=True, expansion=EXPANSIONS[2]),
    }
    for pooling in POOLINGS:
        for expansion in EXPANSIONS:
            rows[f"{pooling}{expansion.label}"] = lambda p=pooling, e=expansion: _global(p, e, bundle)  # type: ignore[misc]
    if name not in rows:
        raise KeyError(f"no system {name!r}; there are {', '.join([*rows, RUNTIME])}")
    return rows[name]()


def runtime_options() -> LocalOptions:
    """Search and verification exactly as the SDK ranks."""
    from delf_edge.query.options import RANKING

    o = RANKING
    return LocalOptions(search=o.search, verify=o.geometry, verified=o.verify, min_inliers=o.min_inliers)


def _global(pooling: str, expansion: Expansion, bundle: Path | None) -> System:
    from benchmarks.systems.backbones import bundle_backbone

    return GlobalSystem(bundle_backbone(load_bundle(bundle)), pooling, expansion)


def _rootsift() -> System:
    from benchmarks.systems.keypoints import rootsift

    return LocalSystem(rootsift())


def _orb() -> System:
    from benchmarks.systems.keypoints import orb

    return LocalSystem(orb())


def _xfeat() -> System:
    from benchmarks.systems.keypoints import xfeat

    return LocalSystem(xfeat())


def _embedding() -> System:
    from benchmarks.systems.backbones import torch_embedding

    return EmbeddingSystem(*torch_embedding())


def _delf(
    name: str, bundle: Path | None, preset: str | None, *, fused: bool, expansion: Expansion | None = None
) -> System:
    from benchmarks.systems.delf import DelfSystem
    from delf_edge.features.extractor import extract_options

    loaded = load_bundle(bundle)
    options = runtime_options()
    if not fused:
        options = replace(options, search=replace(options.search, global_weight=0.0))
    return DelfSystem(
        loaded,
        extract_options(loaded, preset),
        ranking="fused" if fused else "inliers",
        label=name,
        expansion=expansion,
        options=options,
    )
