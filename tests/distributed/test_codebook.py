"""A codebook fitted on a cluster: the sample, the same bits for any number of workers, and a sound bundle."""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
import os
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import Bundle, OptionError, Recognizer
from delf_edge.arrays import unit
from delf_edge.cli import distributed
from delf_edge.codebooks import kmeans as cl
from delf_edge.codebooks import opq
from delf_edge.codebooks.partitions import every, head
from delf_edge.codebooks.projections import Moments, moments_of
from delf_edge.diagnostics.doctor import diagnose
from delf_edge.errors import BuildError, BundleError
from delf_edge.types import Float32Array
from testing.paths import TINY_BUNDLE

pytest.importorskip("distributed", reason="the extra 'build' is not installed")

from delf_edge.distributed import codebook as module
from delf_edge.distributed import partitioned_fit
from delf_edge.distributed.cluster import Progress
from delf_edge.distributed.codebook import FitOptions, FitReport, fit_codebook
from delf_edge.distributed.partitioned_fit import choose, fit_shards
from delf_edge.distributed.raw_features import read_features
from delf_edge.distributed.shards import make_shard
from delf_edge.interchange.photo_entry import PhotoEntry
from delf_edge.interchange.photo_tables import cut, read_rows

pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask's own, and of sockets that a killed worker leaves

N = 20
OPTIONS = FitOptions(bundle=str(TINY_BUNDLE), photos=16, per_landmark=6, words=16, shard_size=4, workers=1)


def photo(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 photos of four places; one is no photo, one shows nothing."""
    folder = tmp_path_factory.mktemp("source")
    for i in range(N):
        (folder / f"{i}.jpg").write_bytes(photo(i))
    (folder / "3.jpg").write_bytes(b"no photo at all")
    (folder / "5.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((240, 320, 3), np.uint8))[1].tobytes())
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "landmark"), *((f"{i}.jpg", f"place {i % 4}") for i in range(N))])
    return folder / "photos.csv"


def files_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def one_worker(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitReport]:
    out = tmp_path_factory.mktemp("one") / "bundle"
    return out, fit_codebook(str(source), out, OPTIONS)


def listed(n: int, landmarks: int = 5) -> list[PhotoEntry]:
    return [PhotoEntry(i, f"/{i}.jpg", f"{i}.jpg", f"place {i % landmarks}") for i in range(n)]


def test_the_sample_is_a_function_of_the_table() -> None:
    rows = listed(1000)
    chosen = choose(rows, 40, 6, seed=1)
    assert len(chosen) == 30  # five places of at most six
    assert [row.row for row in chosen] == sorted(row.row for row in chosen)
    # the plain form: all rows by their keys, at most six of a place, the first forty
    keys = {r.name: hashlib.sha256(f"1\0{r.name}".encode()).digest() for r in rows}
    plain: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: keys[row.name]):
        if len(plain.setdefault(row.landmark, [])) < 6:
            plain[row.landmark].append(row.row)
    assert [row.row for row in chosen] == sorted(number for numbers in plain.values() for number in numbers)
    assert {r.name for r in choose(reversed(rows), 40, 6, seed=1)} == {r.name for r in chosen}
    assert choose(rows, 40, 6, seed=2) != chosen
    assert len(choose(rows, 7, 1000, seed=1)) == 7
    assert choose(listed(3), 40, 6, seed=1) == listed(3)


def test_one_worker_gives_a_sound_bundle(source: Path, one_worker: tuple[Path, FitReport]) -> None:
    out, report = one_worker
    Bundle.verify(out)
    bundle, base = Bundle.load(out), Bundle.load(TINY_BUNDLE)
    assert bundle.id == report.bundle != base.id
    assert (bundle.codebook.n_words, bundle.codebook.dim) == (16, base.codebook.dim)
    assert bundle.network == base.network
    assert bundle.presets == base.presets
    assert report.codebook_sha256 == files_of(out)["codebook.npz"]
    assert diagnose(out).passed
    assert "fitted for bundle" in diagnose(out).bundle["probability"]
    assert bundle.manifest.calibration_of == report.calibration_of == base.id
    assert (out / "MODEL_CARD_OF_NETWORKS.md").read_bytes() == (TINY_BUNDLE / "MODEL_CARD.md").read_bytes()
    assert "do not rely on them" in (out / "MODEL_CARD.md").read_text()
    assert "listed in photos.csv" in bundle.manifest.training_data[-1]
    with (Path(f"{out}-work") / "bad.csv").open(newline="") as file:
        assert {row["row"] for row in csv.DictReader(file)} <= {"3"}
    with Recognizer.open(out.parent / "own.db", bundle=bundle) as recognizer:
        recognizer.add((source.parent / "7.jpg").read_bytes(), landmark="seven", name="7.jpg")
        recognizer.add((source.parent / "8.jpg").read_bytes(), landmark="eight", name="8.jpg")
        assert recognizer.search((source.parent / "8.jpg").read_bytes(), 1)[0].name == "8.jpg"


def test_two_workers_one_of_which_is_killed(
    source: Path, one_worker: tuple[Path, FitReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed in the middle of the fit, with the rows that it held."""
    killed: list[int] = []
    clients: list[Any] = []
    real = fit_shards

    def watched(client: Any, *rest: Any) -> Any:
        clients.append(client)
        return real(client, *rest)

    def kill() -> None:
        pids = clients[0].run(os.getpid).values()
        killed.append(next(iter(pids)))
        os.kill(killed[-1], signal.SIGKILL)

    def report(line: str) -> None:
        if "words and codes" in line:
            kill()

    monkeypatch.setattr(module, "fit_shards", watched)
    options = replace(OPTIONS, workers=2)
    report_of = fit_codebook(str(source), tmp_path / "bundle", options, report=report)
    assert len(killed) == 1
    assert report_of.bundle == one_worker[1].bundle
    assert files_of(tmp_path / "bundle") == files_of(one_worker[0])


def test_finished_shards_are_kept_and_the_probability_can_be_given(
    source: Path, one_worker: tuple[Path, FitReport], tmp_path: Path
) -> None:
    weights = {"votes": 2.0, "threshold": 0.4}
    (tmp_path / "weights.json").write_text(json.dumps(weights))
    seen: list[Progress] = []
    options = replace(
        OPTIONS, probability=str(tmp_path / "weights.json"), work=f"{one_worker[0]}-work", name="mine", workers=2
    )
    report = fit_codebook(str(source), tmp_path / "bundle", options, on_progress=seen.append)
    assert (report.skipped, seen) == (4, [])
    assert report.codebook_sha256 == one_worker[1].codebook_sha256
    assert report.calibration_of is None
    bundle = Bundle.load(tmp_path / "bundle")
    assert (bundle.manifest.name, dict(bundle.calibration)) == ("mine", weights)
    assert "probability" not in diagnose(tmp_path / "bundle").bundle
    # A bundle that was fitted once can be the base of another: the card of the networks and the debt go on.
    again = fit_codebook(
        str(source), tmp_path / "again", replace(OPTIONS, bundle=str(one_worker[0]), work=str(tmp_path / "w"))
    )
    assert again.calibration_of == Bundle.load(TINY_BUNDLE).id
    assert files_of(tmp_path / "again")["MODEL_CARD_OF_NETWORKS.md"] == files_of(TINY_BUNDLE)["MODEL_CARD.md"]


class InParts:
    """Rows in several parts in this process, for comparison with all in one."""

    def __init__(self, parts: list[Float32Array]) -> None:
        self._parts = parts

    def sizes(self) -> list[int]:
        return [len(part) for part in self._parts]

    def map(self, function: Any, argument: Any, each: Any = None) -> Any:
        for i, part in enumerate(self._parts):
            yield function(part, argument if each is None else (argument, each[i]))

    def derive(self, function: Any, argument: Any, each: Any = None) -> InParts:
        return InParts(list(self.map(function, argument, each)))


def rows_of(n: int, dim: int = 16) -> Float32Array:
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(20, dim))[rng.integers(20, size=n)] + 0.3 * rng.normal(size=(n, dim)))


def cut_up(x: Float32Array) -> InParts:
    return InParts([x[:700], x[700:700], x[700:1900], x[1900:]])  # one of them empty


def test_parts_give_what_the_whole_gives() -> None:
    x = rows_of(3000)
    parts = cut_up(x)
    np.testing.assert_array_equal(head(every(parts, 7), 1000), x[::7][:1000])
    np.testing.assert_array_equal(head(parts, 800), x[:800])
    for k, fit, iterations in ((12, cl.kmeans, 4), (60, cl.tree_kmeans, 3)):
        one, several = (fit(rows, k, iterations=iterations) for rows in (x, parts))
        assert one.shape == (k, 16)
        np.testing.assert_allclose(several, one, atol=1e-4)  # sums of sums round differently
    np.testing.assert_allclose(opq.fit_pq(parts, 4, iterations=2), opq.fit_pq(x, 4, iterations=2), atol=1e-4)
    rotation, pq = opq.fit_opq(parts, 4, iterations=2)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(16), atol=1e-5)
    whole = opq.fit_opq(x, 4, iterations=2)
    np.testing.assert_allclose(np.abs(pq).mean(), np.abs(whole[1]).mean(), rtol=0.02)


def test_an_empty_cluster_takes_the_worst_row_of_all_parts() -> None:
    x = np.concatenate([np.zeros((50, 2)), np.ones((50, 2)), [[9.0, 9.0]]]).astype(np.float32)
    start = np.array([[0, 0], [1, 1], [-50, -50]], np.float32)
    moved = cl.kmeans(InParts([x[:30], x[30:100], x[100:]]), 3, iterations=1, start=start)
    np.testing.assert_array_equal(moved, cl.kmeans(x, 3, iterations=1, start=start))
    assert not (moved == -50).any()


def test_moments_add_up() -> None:
    x = rows_of(500)
    whole, merged = moments_of([x]), Moments(16)
    for part in (x[:100], x[100:480], x[480:]):
        merged.merge(moments_of([part]))
    assert merged.n == whole.n
    np.testing.assert_allclose(merged.covariance, whole.covariance, atol=1e-12)


def test_too_little_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="divisor of 16"):
        fit_codebook(str(source), tmp_path / "b", replace(OPTIONS, code_size=5))
    with pytest.raises(OptionError, match="must be at least 1"):
        FitOptions(photos=0)
    with pytest.raises(BundleError):
        fit_codebook(str(source), tmp_path / "b", replace(OPTIONS, bundle=str(tmp_path)))
    (tmp_path / "none.csv").write_text("path,landmark\n")
    with pytest.raises(OptionError, match="no row"):
        fit_codebook(str(tmp_path / "none.csv"), tmp_path / "b", OPTIONS)
    (tmp_path / "black.csv").write_text(f"path,landmark\n{source.parent / '5.jpg'},x\n")
    with pytest.raises(BuildError, match="no photo of the sample gave a feature"):
        fit_codebook(str(tmp_path / "black.csv"), tmp_path / "b", OPTIONS)
    with pytest.raises(BuildError, match="20000 centroids"):
        fit_codebook(str(source), tmp_path / "b", replace(OPTIONS, words=20_000, work=str(tmp_path / "w")))
    assert not (tmp_path / "b").exists()


def test_the_command_and_the_library_have_the_same_defaults() -> None:
    parameters = inspect.signature(distributed.fit_codebook_command).parameters
    shared = {f.name: f.default for f in fields(FitOptions) if f.name in parameters}
    assert {"photos", "per_landmark", "seed"} <= set(shared)
    assert {name: parameters[name].default for name in shared} == shared


def test_a_shard_of_features_is_a_pure_function(source: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(TINY_BUNDLE)

    def made(out: Path) -> tuple[str, bytes]:
        (shard, *_) = cut(
            read_rows(str(source)),
            8,
            bundle=str(TINY_BUNDLE),
            bundle_id=bundle.id,
            preset="fast",
            out=str(out),
            what="features",
        )
        manifest = make_shard(shard)
        assert (manifest.photos, manifest.images, [bad.row for bad in manifest.bad]) == (8, 6, [3])
        return shard.name, (out / f"{shard.name}.shard").read_bytes()

    first = made(tmp_path / "a")
    assert first == made(tmp_path / "b")
    found = read_features(str(tmp_path / "a" / f"{first[0]}.shard"))
    assert found is not None
    assert found[0].shape == (600, bundle.manifest.network.channels)
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=1), 1, atol=2e-3)


def test_the_fit_is_that_of_one_process(one_worker: tuple[Path, FitReport], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster only carries: the same parts in this process give the same codebook."""
    folder = Path(f"{one_worker[0]}-work") / "features"
    urls = sorted(str(path) for path in folder.glob("*.shard"))

    class Here:
        """What the fit asks of a Dask client, done at once."""

        def submit(self, function, *arguments, **_):  # type: ignore[no-untyped-def]
            return Done(function(*(a.value if isinstance(a, Done) else a for a in arguments)))

    class Done:
        def __init__(self, value: object) -> None:
            self.value = value

    monkeypatch.setattr(partitioned_fit, "result_of", lambda client, future: future.value)
    settings = OPTIONS.codebook(Bundle.load(TINY_BUNDLE))
    fit = fit_shards(Here(), urls, Bundle.load(TINY_BUNDLE).codebook, settings, lambda line: None)
    with np.load(one_worker[0] / "codebook.npz") as stored:
        for name, array in fit.arrays.items():
            np.testing.assert_array_equal(array, stored[name], err_msg=name)
