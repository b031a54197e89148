"""Builds: the same bits for any number of workers, killed ones included; poison is a row; runs are resumed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_edge import Bundle, OptionError, Recognizer
from delf_edge.errors import BuildError
from delf_edge.storage.store import Store
from testing.paths import ROOT, TINY_BUNDLE

pytest.importorskip("distributed", reason="the extra 'build' is not installed")
import fsspec

from delf_edge.catalogue.columns import read_patches
from delf_edge.catalogue.reader import CatalogueReader
from delf_edge.distributed.build import BuildOptions, build
from delf_edge.distributed.cluster import Progress, make_shards
from delf_edge.distributed.isolation import make_shard_isolated
from delf_edge.distributed.merging import merge_shards
from delf_edge.distributed.remote_files import finished
from delf_edge.distributed.shards import make_shard
from delf_edge.interchange.photo_tables import Shard, cut, read_rows

pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask's own, and of sockets that a killed worker leaves

N = 23
OPTIONS = BuildOptions(bundle=str(TINY_BUNDLE), preset="fast", shard_size=6)


def photo(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 rows: two of them bad, one photo twice, places with coordinates, a column `region`."""
    folder = tmp_path_factory.mktemp("source")
    rows: list[dict[str, object]] = []
    for i in range(N):
        (folder / f"{i}.jpg").write_bytes(photo(i))
        at = {"latitude": i % 4, "longitude": 7.5} if i % 4 else {"latitude": "", "longitude": ""}
        rows.append({"path": f"{i}.jpg", "landmark": f"place {i % 4}", "region": "ab"[i % 2], **at})
    (folder / "3.jpg").write_bytes(b"no photo at all")
    (folder / "9.jpg").unlink()
    shutil.copy(folder / "20.jpg", folder / "2.jpg")
    return write_table(folder / "photos.csv", rows)


def shards_of(source: Path, out: str, size: int = 6) -> list[Shard]:
    bundle = Bundle.load(TINY_BUNDLE)
    rows = read_rows(str(source))
    return list(cut(rows, size, bundle=str(TINY_BUNDLE), bundle_id=bundle.id, preset="fast", out=f"{out}/shards"))


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every shard, manifest and database below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".shard", ".db", ".json", ".csv")]
    kept = [path for path in paths if path.name != "build.json"]  # it says how long the build took
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same work in this process, one shard after the other: what any cluster must arrive at."""
    out = tmp_path_factory.mktemp("plain")
    shards = shards_of(source, str(out))
    for shard in shards:
        make_shard(shard)
    merge_shards(str(out), [shard.name for shard in shards])
    return out


def test_one_process(plain: Path, source: Path) -> None:
    with Store.open(plain / "places.db") as store:
        assert store.verify() == []
        assert len(store) == N - 3
        assert store.image("5.jpg").image_id == 6
        assert store.image("5.jpg").metadata == {"region": "b"}
        assert {p.name: (p.latitude, p.longitude) for p in store.landmarks()} == {
            "place 0": (None, None),
            **{f"place {i}": (float(i), 7.5) for i in (1, 2, 3)},
        }
    bundle = Bundle.load(TINY_BUNDLE)
    with Recognizer.open(plain / "places.db", bundle=bundle, preset="fast") as recognizer:
        assert recognizer.search((source.parent / "11.jpg").read_bytes(), 1)[0].name == "11.jpg"
        assert recognizer.add(photo(99), landmark="new").status == "added"


def test_two_workers_one_of_which_is_killed(plain: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if not killed and pids:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    pids: list[int] = []
    from delf_edge.distributed.cluster import connect_cluster

    with connect_cluster(None, 2) as client:
        pids += client.run(os.getpid).values()
        assert len(set(pids)) == 2
        names, progress = make_shards(client, iter(shards_of(source, str(out))), f"{out}/shards", kill)
    assert killed
    assert progress.failed == {}
    assert len(names) == 4
    merge_shards(str(out), names)
    fresh = tmp_path / "fresh"
    shutil.copytree(plain / "shards", fresh / "shards")
    merge_shards(str(fresh), names)
    assert hashes(out) == hashes(fresh)


def test_a_whole_build_is_resumed(source: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = make_shard(shards_of(source, str(out))[1])
    seen: list[tuple[int, int]] = []
    report = build(str(source), str(out), OPTIONS, on_progress=lambda p: seen.append((p.shards, p.skipped)))
    assert (report.shards, report.skipped, report.bad) == (3, 1, 3)
    assert seen[-1] == (3, 1)
    assert hashes(out / "shards") == hashes(plain / "shards")
    assert first.images == 5
    bad = list(csv.DictReader((out / "bad.csv").open(newline="")))
    assert [(row["row"], row["error"]) for row in bad] == [
        ("3", "ImageDecodeError"),
        ("9", "FileNotFoundError"),
        ("20", "Duplicate"),
    ]
    facts = json.loads((out / "build.json").read_text())
    assert facts["databases"][0]["images"] == N - 3
    again = build(str(source), str(out), OPTIONS)
    assert (again.shards, again.skipped) == (0, 4)
    assert again.databases == report.databases
    shard = next((out / "shards").glob("*.shard"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BuildError, match="damaged"):
        merge_shards(str(out), sorted(finished(f"{out}/shards")))


def test_one_database_for_each_value_of_a_column(source: Path, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain / "shards", tmp_path / "shards")
    databases, bad, _ = merge_shards(str(tmp_path), sorted(finished(f"{tmp_path}/shards")), split="region")
    assert [(Path(d.url).name, d.images) for d in databases] == [("a.db", 11), ("b.db", 9)]
    assert [row.row for row in bad] == [3, 9, 20]
    (whole,), _, _ = merge_shards(str(tmp_path), sorted(finished(f"{tmp_path}/shards")), split="absent")
    assert Path(whole.url).name == "none.db"


def test_a_catalogue_goes_to_the_databases_that_have_its_landmarks(source: Path, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "p0.png").write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    rows: list[dict[str, object]] = [
        {"slug": "nought", "name": "place 0", "title.en": "Nought", "picture": "p0.png", "odd": "x"},
        {"slug": "place-1", "name": "", "title.en": "One", "picture": "", "odd": ""},  # the slug that a build gives
        {"slug": "", "name": "place 9", "title.en": "Nine", "picture": "", "odd": ""},
    ]
    told, not_understood = read_patches(write_table(tmp_path / "known.csv", rows), database=tmp_path)
    assert not_understood == ["odd"]
    hashes = []
    for folder in ("first", "again"):
        shutil.copytree(plain / "shards", tmp_path / folder / "shards")
        names = sorted(finished(f"{tmp_path / folder}/shards"))
        made = merge_shards(str(tmp_path / folder), names, split="region", catalogue=told)
        assert [where.rpartition(", ")[2] for where in made.unused] == ["row 3"]
        hashes.append([d.sha256 for d in made.databases])
    assert hashes[0] == hashes[1]
    titles: dict[str, dict[str, str]] = {}
    for file in sorted((tmp_path / "first").glob("*.db")):
        with Store.open(file, mode="ro") as store:
            assert store.verify() == []
            records = list(CatalogueReader([store]))
            titles[file.name] = {r.slug: str(r.texts["en"].title) for r in records if r.texts}
            assert [r.name for r in records if r.media] == [r.name for r in records if r.slug == "nought"]
    assert titles == {"a.db": {"nought": "Nought"}, "b.db": {"place-1": "One"}}


def test_a_wrong_catalogue_is_noticed_before_any_photo_is_read(source: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "known.csv", [{"name": "place 0", "latitude": "95", "longitude": "1"}])
    with pytest.raises(OptionError, match=r"known\.csv, row 1, column latitude"):
        build(str(source), str(tmp_path / "out"), replace(OPTIONS, catalogue=str(table)))
    twice = write_table(tmp_path / "twice.csv", [{"name": "place 0", "title.en": t} for t in "ab"])
    with pytest.raises(OptionError, match="was in row 1 already"):
        build(str(source), str(tmp_path / "out"), replace(OPTIONS, catalogue=str(twice)))
    assert not (tmp_path / "out").exists()


def test_a_value_that_is_no_file_name_is_refused(source: Path, tmp_path: Path) -> None:
    table = write_table(source.parent / "odd.csv", [{"path": "0.jpg", "landmark": "x", "region": "../a"}])
    (shard,) = shards_of(table, str(tmp_path))
    make_shard(shard)
    with pytest.raises(OptionError, match="column region"):
        merge_shards(str(tmp_path), [shard.name], split="region")


KILLER = """
import os, signal
import fsspec
from fsspec.spec import AbstractFileSystem

class Deadly(AbstractFileSystem):
    protocol = "deadly"
    def _open(self, path, mode="rb", **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

fsspec.register_implementation("deadly", Deadly)
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system in every new Python process that kills whoever reads from it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLER)
    inherited = os.environ.get("PYTHONPATH", "")
    root = str(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), root, inherited]))


@pytest.mark.usefixtures("deadly")
def test_a_photo_that_kills_the_process_is_a_row(source: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"path": p, "landmark": "x"} for p in ("0.jpg", "deadly://photo", "1.jpg")]
    table = write_table(source.parent / "deadly.csv", rows)
    out = tmp_path / "out"
    (shard,) = shards_of(table, str(out))
    manifest = make_shard_isolated(shard)
    assert [(bad.row, bad.message) for bad in manifest.bad] == [(1, "the process that read it died of signal 9")]
    assert manifest.images == 2


@pytest.mark.usefixtures("deadly")
def test_a_photo_that_kills_workers_does_not_end_the_build(source: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"path": p, "landmark": "x"} for p in ("0.jpg", "deadly://photo", "1.jpg", "4.jpg")
    ]
    table = write_table(source.parent / "deadly2.csv", rows)
    options = BuildOptions(bundle=str(TINY_BUNDLE), preset="fast", shard_size=2, workers=1)
    report = build(str(table), str(tmp_path / "out"), options)
    assert 0 in report.careful  # the other one too, if it waited on the worker that died
    assert (report.shards, report.bad, report.databases[0].images) == (2, 1, 3)


def test_the_limit_on_pixels_is_an_option(source: Path, tmp_path: Path) -> None:
    """And part of what a shard depends on: a photo that was too large is tried again with a higher limit."""
    rows = list(read_rows(str(source)))[:2]
    shards = {
        limit: next(
            cut(
                iter(rows),
                9,
                bundle=str(TINY_BUNDLE),
                bundle_id=Bundle.load(TINY_BUNDLE).id,
                preset="fast",
                out=f"{tmp_path}/shards",
                max_pixels=limit,
            )
        )
        for limit in (None, 1000, 10_000_000)
    }
    made = {limit: make_shard(shard) for limit, shard in shards.items()}
    assert len({shard.name for shard in shards.values()}) == 3
    assert {limit: manifest.images for limit, manifest in made.items()} == {None: 2, 1000: 0, 10_000_000: 2}
    assert "the cap is 0.0 million" in made[1000].bad[0].message
    assert make_shard_isolated(shards[1000]).bad == made[1000].bad


def test_any_file_system(source: Path, plain: Path) -> None:
    files = fsspec.filesystem("memory")
    for path in source.parent.iterdir():
        if path.suffix == ".jpg":
            files.pipe_file(f"/in/{path.name}", path.read_bytes())
    files.pipe_file("/in/photos.csv", source.read_bytes())
    bundle = Bundle.load(TINY_BUNDLE)
    rows = read_rows("memory://in/photos.csv")
    shards = list(cut(rows, 6, bundle=str(TINY_BUNDLE), bundle_id=bundle.id, preset="fast", out="memory://out/shards"))
    for shard in shards:
        make_shard(shard)
    assert finished("memory://out/shards") == {shard.name for shard in shards}
    databases, bad, _ = merge_shards("memory://out", [shard.name for shard in shards])
    assert (databases[0].images, len(bad)) == (N - 3, 3)
    with Store.open(plain / "places.db", mode="ro") as store:
        assert databases[0].features <= store.info().n_features
    assert files.ls("/out", detail=False) == ["/out/places.db", "/out/shards"]


def test_parquet_is_read_as_csv_is(source: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    table = arrow_csv.read_csv(source)
    parquet.write_table(table, tmp_path / "photos.parquet")
    assert list(read_rows(str(tmp_path / "photos.parquet"), str(source.parent))) == list(read_rows(str(source)))
    parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "bad.parquet")
    with pytest.raises(OptionError, match="landmark missing"):
        list(read_rows(str(tmp_path / "bad.parquet")))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "a.jpg", "place": "x"}], "landmark missing"),
        ([{"path": "", "landmark": "x"}], "neither may be empty"),
        ([{"path": "a", "landmark": "x", "latitude": 91, "longitude": 0}], "no place on Earth"),
        ([{"path": "a", "landmark": "x", "latitude": "north", "longitude": 0}], "degrees"),
    ],
)
def test_bad_tables_are_refused(rows: list[dict[str, object]], message: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(OptionError, match=message):
        build(str(table), str(tmp_path / "out"), OPTIONS)
    with pytest.raises(OptionError, match="cannot be read"):
        build(str(tmp_path / "none.csv"), str(tmp_path / "out"), OPTIONS)
    with pytest.raises(OptionError, match="no file can have this name"):
        build("none\0.csv", str(tmp_path / "out"), OPTIONS)
    with pytest.raises(OptionError, match="no file can have this name"):
        build(str(table), "\ud800", OPTIONS)


@pytest.mark.parametrize("url", ["nowhere://bucket/x", "needy://bucket/x"])
def test_a_url_that_fsspec_cannot_open_is_refused(url: str, tmp_path: Path) -> None:
    fsspec.register_implementation("needy", "package_that_is_absent.Files", clobber=True)
    with pytest.raises(OptionError, match=url):
        build(f"{url}.csv", str(tmp_path / "out"), OPTIONS)
    table = write_table(tmp_path / "t.csv", [{"path": "a.jpg", "landmark": "x"}])
    with pytest.raises(OptionError, match=url):
        build(str(table), url, OPTIONS)


def test_the_cluster_must_be_there(source: Path, tmp_path: Path) -> None:
    options = BuildOptions(bundle=str(TINY_BUNDLE), scheduler="tcp://127.0.0.1:1")
    with pytest.raises(BuildError, match="no Dask scheduler"):
        build(str(source), str(tmp_path / "out"), options)
