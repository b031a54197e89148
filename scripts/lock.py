"""Write requirements.lock: every package that the demo, the service and the tests install, with hashes.

Run with pip-tools installed: python scripts/lock.py. Wheels and sources of all platforms are hashed; what is named was
resolved for the Python that runs this. To install exactly that: pip install --require-hashes --no-deps -r
requirements.lock, then pip install --no-deps --editable '.'
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("build", "interchange", "update", "web", "test")


def wanted() -> list[str]:
    """Requirements of the package and of `EXTRAS`, without the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(r for e in EXTRAS for r in project["optional-dependencies"][e])]
    return sorted({line for line in lines if not line.startswith(project["name"])})


def main() -> None:
    """Resolve and write."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requirements.in"
        source.write_text("\n".join(wanted()) + "\n", encoding="utf-8")
        quiet = [
            "--no-emit-index-url",
            "--no-emit-trusted-host",
            "--no-emit-find-links",
            "--no-annotate",
            "--no-header",
        ]
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--strip-extras"]
        command += [*quiet, "--allow-unsafe", "--output-file", str(Path(folder) / "requirements.lock"), str(source)]
        subprocess.run(command, check=True)
        text = (Path(folder) / "requirements.lock").read_text(encoding="utf-8")
    head = f"# Made by scripts/lock.py with Python {sys.version_info.major}.{sys.version_info.minor}; see there.\n"
    (ROOT / "requirements.lock").write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    main()
