"""A bundle loads only when every byte that is read is the manifest's and everything fits together."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.errors import BundleError, BundleIntegrityError, BundleVersionError, OptionError
from testing.paths import TINY_BUNDLE

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY_BUNDLE, tmp_path / "bundle"))


def edit(folder: Path, change: Edit) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Another content, with its right size and hash in the manifest."""
    (folder / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(folder, lambda m: m["files"].update({name: entry}))


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "codebook.npz") as archive:
        return {name: archive[name] for name in archive.files}


def replace_arrays(folder: Path, changes: dict[str, np.ndarray | None]) -> None:
    merged = {**arrays(folder), **changes}
    out = io.BytesIO()
    np.savez(out, **{name: a for name, a in merged.items() if a is not None})  # type: ignore[arg-type]
    replace_file(folder, "codebook.npz", out.getvalue())


def test_load() -> None:
    bundle = Bundle.load(TINY_BUNDLE)
    assert bundle.variant == "float16"
    assert bundle.network == (TINY_BUNDLE / "local_float16.tflite").read_bytes()
    assert bundle.tail == (TINY_BUNDLE / "tail_float16.tflite").read_bytes()
    assert bundle.golden == (TINY_BUNDLE / "golden.npz").read_bytes()
    assert (bundle.manifest.network.stride, bundle.manifest.network.channels) == (16, 16)
    assert bundle.manifest.default_preset in bundle.presets
    assert dict(bundle.calibration) == {}
    assert Bundle.verify(TINY_BUNDLE).name == "tiny (tests)"


def test_the_id_names_the_manifest_whatever_its_layout(folder: Path) -> None:
    manifest = json.loads((TINY_BUNDLE / "manifest.json").read_text())
    compact = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    first = Bundle.load(folder).id
    assert first == hashlib.sha256(compact.encode()).hexdigest()[:12]
    (folder / "manifest.json").write_text(json.dumps(dict(reversed(manifest.items())), indent=7))
    assert Bundle.load(folder).id == first
    edit(folder, lambda m: m.update(version="2"))
    assert Bundle.load(folder).id != first


def test_stored_forms_of_arrays_become_float32() -> None:
    stored, codebook = arrays(TINY_BUNDLE), Bundle.load(TINY_BUNDLE).codebook
    assert stored["centroids"].dtype == np.int8
    assert stored["pq"].dtype == np.float16
    np.testing.assert_allclose(codebook.centroids, stored["centroids"] * stored["centroids_scale"][:, None], rtol=1e-6)
    np.testing.assert_array_equal(codebook.pq, stored["pq"].astype(np.float32))
    for name in type(codebook).__dataclass_fields__:
        assert getattr(codebook, name).dtype == np.float32
        assert not getattr(codebook, name).flags.writeable
    assert (codebook.dim, codebook.n_words, codebook.code_size, codebook.global_dim) == (16, 64, 4, 8)


def test_variants() -> None:
    bundle = Bundle.load(TINY_BUNDLE, variant="int8")
    assert bundle.network == (TINY_BUNDLE / "local_int8.tflite").read_bytes()
    assert bundle.tail == (TINY_BUNDLE / "tail_float16.tflite").read_bytes()  # it has no int8
    with pytest.raises(OptionError, match="no variant 'int4'; it has float16, int8"):
        Bundle.load(TINY_BUNDLE, variant="int4")


@pytest.mark.parametrize("name", ["local_float16.tflite", "tail_float16.tflite", "codebook.npz", "golden.npz"])
def test_one_flipped_bit_is_found(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 4
    (folder / name).write_bytes(data)
    with pytest.raises(BundleIntegrityError, match=rf"{name} has SHA-256 \w+\.\.\., the manifest says"):
        Bundle.load(folder)


def test_only_what_is_used_is_read_and_verify_reads_all(folder: Path) -> None:
    (folder / "local_int8.tflite").unlink()
    Bundle.load(folder)
    with pytest.raises(BundleIntegrityError, match="local_int8"):
        Bundle.verify(folder)
    with pytest.raises(BundleIntegrityError, match="local_int8"):
        Bundle.load(folder, variant="int8")


def test_truncated_files_are_found(folder: Path) -> None:
    path = folder / "golden.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleIntegrityError, match="bytes, the manifest says"):
        Bundle.load(folder)


def test_what_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.load(tmp_path)
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.load(tmp_path / "absent")
    for text, message in (("{", "not valid JSON"), ("[]", "format is 'list'"), ('{"format": "other"}', "'other'")):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(BundleError, match=message):
            Bundle.load(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.load(tmp_path)


def test_a_newer_format_is_refused_by_name(folder: Path) -> None:
    edit(folder, lambda m: m.update(format_version=2))
    with pytest.raises(BundleVersionError, match="format 2, this SDK reads up to 1; upgrade"):
        Bundle.load(folder)
    for wrong in (True, "1", 0, None):
        edit(folder, partial(dict.update, format_version=wrong))
        with pytest.raises(BundleError, match="format_version"):
            Bundle.load(folder)


@pytest.mark.parametrize(
    "key",
    ["name", "files", "network", "tail", "selection", "global", "codebook", "presets", "default_preset", "golden"],
)
def test_every_missing_key_is_named(folder: Path, key: str) -> None:
    edit(folder, lambda m: m.pop(key))
    with pytest.raises(BundleError, match=f"manifest: {key} is missing"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["network"].pop("stride"), "network.stride is missing"),
        (lambda m: m["network"].update(stride=0), "network.stride is 0"),
        (lambda m: m["network"].update(stride="16"), "wrong type"),
        (lambda m: m["network"].update(stride=True), "wrong type"),
        (lambda m: m["network"]["input"].update(scale=0), "network.input.scale"),
        (lambda m: m["network"]["input"].update(layout="NCHW"), "'NCHW'"),
        (lambda m: m["network"].update(default="none"), "network.default is 'none'"),
        (lambda m: m["network"]["variants"].update(float16="absent.tflite"), "absent.tflite"),
        (lambda m: m.update(selection="random"), "selection is 'random'"),
        (lambda m: m.update(default_preset="absent"), "default_preset is 'absent'"),
        (lambda m: m.update(codebook="../codebook.npz"), "not in files"),
        (lambda m: m["files"]["golden.npz"].update(sha256="00"), "SHA-256"),
        (lambda m: m["files"]["golden.npz"].update(bytes=-1), "SHA-256"),
        (lambda m: m["global"].update(gem_p=float("nan")), "global.gem_p"),
        (lambda m: m["network"].update(channels=17), r"C=17"),
    ],
)
def test_wrong_values_are_named(folder: Path, change: Edit, message: str) -> None:
    edit(folder, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["../x.tflite", "/etc/passwd", "a/b", "..", "", ".hidden", "manifest.json", "a\n"])
def test_file_names_cannot_leave_the_folder(folder: Path, name: str) -> None:
    edit(folder, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleError, match="is not allowed"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("pca_mean", None, "pca_mean is missing"),
        ("pca_mean", np.zeros(15, np.float32), r"pca_mean has shape \(15,\), expected \(16,\)"),
        ("centroids_scale", None, "int8 without centroids_scale"),
        ("centroids_scale", np.ones(63, np.float32), "centroids_scale has shape"),
        ("centroids", np.zeros((64, 16)), "float64"),
        ("rotation", np.full((16, 16), np.nan, np.float32), "not finite"),
        ("pq", np.zeros((3, 256, 5), np.float32), "multiple of M=3"),
        ("pq", np.zeros((4, 128, 4), np.float32), "pq has shape"),
        ("pq", np.array([None]), "not an npz of plain arrays"),
        ("global_basis", np.zeros((8, 31), np.float32), "global_basis has shape"),
        ("centroids", np.zeros((0, 16), np.float32), "K=0"),
    ],
)
def test_codebooks_that_do_not_fit(folder: Path, name: str, array: np.ndarray | None, message: str) -> None:
    replace_arrays(folder, {name: array})
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


def test_a_codebook_that_is_no_archive(folder: Path) -> None:
    replace_file(folder, "codebook.npz", b"PK\x03\x04 not a zip")
    with pytest.raises(BundleError, match="not an npz"):
        Bundle.load(folder)
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    replace_file(folder, "codebook.npz", out.getvalue())
    with pytest.raises(BundleError, match="not an npz"):
        Bundle.load(folder)
    header = b"{'descr': '<f4', (" + b" " * 60 + b"\n"  # NumPy hands such a header to Python's tokenizer
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("pca_mean.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    replace_file(folder, "codebook.npz", out.getvalue())
    with pytest.raises(BundleError, match="not an npz"):
        Bundle.load(folder)


def test_a_bundle_without_tail(folder: Path) -> None:
    edit(folder, lambda m: m.update(tail=None))
    with pytest.raises(BundleError, match="global_mean has shape"):
        Bundle.load(folder)
    replace_arrays(folder, {"global_mean": np.zeros(16, np.float32), "global_basis": np.eye(8, 16, dtype=np.float32)})
    assert Bundle.load(folder).tail is None


def test_the_default_bundle_lies_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "delf_edge"
    monkeypatch.setattr("delf_edge.bundle.bundle.__file__", str(package / "bundle" / "bundle.py"))
    with pytest.raises(BundleError, match=r"no default bundle in .*--bundle"):
        default_bundle_path()
    shutil.copytree(TINY_BUNDLE, tmp_path / "assets" / "default")  # beside the package: somebody else's folder
    with pytest.raises(BundleError, match=r"no default bundle in .*--bundle"):
        default_bundle_path()
    shutil.copytree(TINY_BUNDLE, package / "assets" / "default")
    assert Bundle.load(default_bundle_path()).manifest.name == "tiny (tests)"
    assert default_bundle_path() == (package / "assets" / "default").resolve()
