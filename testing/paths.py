"""Where things lie in a checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
TINY_BUNDLE = FIXTURES / "tiny_bundle"
DEMO = ROOT / "assets" / "demo"
SHARED = ROOT.parent / "shared"  # beside every checkout of ours, not of a user's: what needs it skips without
