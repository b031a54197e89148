"""Extract the features that the search benchmark needs: `python -m benchmarks.search_data [DATA]`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.data.feature_cache import FeatureCache
from benchmarks.lab.runner import to_stderr
from benchmarks.lab.search_data import all_photos, raw_features
from delf_edge.bundle.bundle import Bundle, default_bundle_path


def main() -> int:
    """Extract everything; what is kept already is not extracted again."""
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    raw_features(Bundle.load(default_bundle_path()), all_photos(data), FeatureCache(Path("out/features")), to_stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
