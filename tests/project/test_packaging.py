"""The wheel: what is in it, and that it works in an empty environment, away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from testing.paths import ROOT

NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "out", "work", "tests", "benchmarks", "*.egg-info")
SEE_RUN = 3000  # characters of a failed command's output
EPOCH = "1700000000"  # seconds; the time that every file of the wheel gets


def run(command: Sequence[str | Path], cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["SOURCE_DATE_EPOCH"] = EPOCH
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-SEE_RUN:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the source distribution of a copy of the checkout."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_COPIED)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", "source"], folder)
    (path,) = (folder / "dist").glob("*.whl")
    assert len(list((folder / "dist").glob("*.tar.gz"))) == 1
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and sees the installed dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    run(pip, folder)
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder


def test_only_one_name_at_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.split("/")[0] for name in names} == {"delf_edge", info}
    for needed in (
        "py.typed",
        "cli/main.py",
        "web/static/index.html",
        "web/static/app.js",
        "web/static/app.css",
        "web/static/staff.html",
        "web/static/visitor/place.js",
        "web/static/languages/ar.json",
        "converters/networks/delf.py",
        "assets/default/manifest.json",
    ):
        assert f"delf_edge/{needed}" in names
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if "demo" in name or name.endswith((".db", ".pyc"))]


def test_the_wheel_holds_every_module_and_every_file_of_the_bundle(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for source, target in (("delf_edge", "delf_edge"), ("converters", "delf_edge/converters")):
        for path in (ROOT / source).rglob("*.py"):
            assert f"{target}/{path.relative_to(ROOT / source).as_posix()}" in names
    for path in (ROOT / "assets" / "default").iterdir():
        assert f"delf_edge/assets/default/{path.name}" in names


def test_it_works_away_from_the_checkout(environment: Path, tmp_path: Path) -> None:
    command = environment / "bin" / "delf-edge"
    where = run([environment / "bin" / "python", "-c", "import delf_edge; print(delf_edge.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    report = json.loads(run([command, "doctor", "--json"], tmp_path))
    assert Path(report["bundle"]["folder"]).is_relative_to(environment)

    for landmark in ("Colosseum", "Petra"):
        shutil.copytree(ROOT / "assets" / "demo" / "references" / landmark, tmp_path / "photos" / landmark)
    run([command, "index", "places.db", "photos"], tmp_path)
    photo = ROOT / "assets" / "demo" / "queries" / "colosseum.webp"
    answers = json.loads(run([command, "identify", "places.db", photo, "--json"], tmp_path))["answers"]
    assert [answer["landmark"] for answer in answers] == ["Colosseum"]


def test_a_second_build_elsewhere_is_the_same_to_the_bit(wheel: Path, tmp_path: Path) -> None:
    source = tmp_path / "another folder" / "of another depth"
    shutil.copytree(ROOT, source, ignore=NOT_COPIED)
    for path in source.rglob("*.py"):
        os.utime(path)  # a checkout of another day
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", source], tmp_path)
    again = tmp_path / "dist" / wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert first.namelist() == second.namelist()
        assert [n for n in first.namelist() if first.read(n) != second.read(n)] == []
    assert sha256(again.read_bytes()).hexdigest() == sha256(wheel.read_bytes()).hexdigest()


def test_the_version_is_the_changelog_s(wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
