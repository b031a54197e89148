"""Extract the features that the search benchmark needs: `python -m benchmarks.search_data [DATA]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.data.feature_cache import FeatureCache
from benchmarks.lab.runner import to_stderr
from benchmarks.lab.search_data import all_photos, raw_features
from delf_edge.bundle.bundle import Bundle, default_bundle_path


def main() -> int:
    """Extract everything; what is kept already is not extracted again."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.search_data", description=(__doc__ or "").splitlines()[0])
    p.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"), help="default ../shared/data")
    a = p.parse_args()
    raw_features(Bundle.load(default_bundle_path()), all_photos(a.data), FeatureCache(Path("out/features")), to_stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
