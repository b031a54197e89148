"""Write requirements.lock: every package that the demo, the service and the tests install, with hashes. And
requirements-web.lock: those of them that a container of the service needs.

Run with uv installed: python scripts/lock.py. Wheels and sources of all platforms are hashed, from what the index says
of them (pip-tools would download every one of them); what is named was resolved for the Python that runs this. How to
install exactly that is in README.md, "Working on it".
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("build", "docs", "heif", "interchange", "update", "web", "test")
BOUNDS = [
    "backports-strenum<1.3"
]  # of ai-edge-litert; 1.3 says "Python below 3.11", which pip refuses and uv overlooks


def wanted(extras: Sequence[str]) -> list[str]:
    """Requirements of the package and of extras, without the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]
    return sorted({line for line in lines if not line.startswith(project["name"])})


def resolve(requirements: Sequence[str], name: str, constraint: Path | None = None) -> Path:
    """Resolve, and write the file of this name below the repository."""
    with tempfile.TemporaryDirectory() as folder:
        source, locked = Path(folder) / "requirements.in", Path(folder) / "requirements.lock"
        source.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--generate-hashes"]
        command += [
            "--python",
            sys.executable,
            "--no-annotate",
            "--no-header",
            "--output-file",
            str(locked),
            str(source),
        ]
        if constraint is not None:
            command += ["--constraint", str(constraint)]
        subprocess.run(command, check=True)
        text = locked.read_text(encoding="utf-8")
    head = f"# Made by scripts/lock.py with Python {sys.version_info.major}.{sys.version_info.minor}; see there.\n"
    (ROOT / name).write_text(head + text, encoding="utf-8")
    return ROOT / name


def main() -> None:
    """Resolve and write both."""
    whole = resolve([*wanted(EXTRAS), *BOUNDS], "requirements.lock")
    resolve([*wanted(("web", "heif")), *BOUNDS], "requirements-web.lock", whole)


if __name__ == "__main__":
    main()
