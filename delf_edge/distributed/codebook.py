"""`delf-edge fit-codebook`: manifest, base bundle and cluster in, a bundle with a codebook of its own out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.codebooks.bundle_writer import NETWORK_CARD, check_target, read_calibration, with_codebook
from delf_edge.codebooks.fit import CodebookOptions
from delf_edge.distributed.build import put_bad
from delf_edge.distributed.cluster import Progress, check, connect_cluster, make_shards
from delf_edge.distributed.partitioned_fit import choose, fit_shards
from delf_edge.distributed.shards import BadRow, read_manifests
from delf_edge.errors import OptionError
from delf_edge.features.extractor import extract_options
from delf_edge.files import resolved
from delf_edge.interchange.photo_entry import PhotoEntry
from delf_edge.interchange.photo_tables import cut, located, read_rows


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a codebook is fitted.

    Attributes:
        bundle: folder of the base, whose networks and presets the new bundle has; the same path on every machine;
            None for the one of the package.
        photos: photos of the sample at most.
        per_landmark: photos of one landmark at most.
        sample: descriptors that words and codes are fitted on, about; all of the photos' go into the projection.
        words: K; None for as many as the base, fewer where there are less than 8 descriptors for each.
        dim, code_size, global_dim: D, M and G; None for the base's.
        seed: of everything random.
        shard_size: photos in a shard; part of what the result depends on, in its last bits.
        name: of the new bundle; None for the base's with a note.
        probability: JSON of weights that were fitted with this codebook (`benchmarks.calibrate`); None keeps the base's
            and says so.
        base: where relative paths of the manifest start; None for its folder.
        work: URL of a folder for the raw features, which every worker can reach; None: beside the new bundle.
        scheduler: address of a Dask scheduler; None for a cluster on this machine.
        workers: processes of that cluster; None for one for each core.
        max_pixels: most pixels of a photo (`ImageLimits`); None for the default.
    """

    bundle: str | None = None
    photos: int = 4000
    per_landmark: int = 60
    sample: int = 250_000
    words: int | None = None
    dim: int | None = None
    code_size: int | None = None
    global_dim: int | None = None
    seed: int = 1
    shard_size: int = 128
    name: str | None = None
    probability: str | None = None
    base: str | None = None
    work: str | None = None
    scheduler: str | None = None
    workers: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        counts = (self.photos, self.per_landmark, self.sample, self.shard_size, self.workers or 1)
        if min(counts) < 1 or self.seed < 0:
            raise OptionError(f"{self}: numbers of photos, descriptors and workers must be at least 1, the seed 0")

    def codebook(self, bundle: Bundle) -> CodebookOptions:
        """What is fitted, with the base's sizes where none are given.

        Raises:
            OptionError: the sizes do not fit together.
        """
        known = bundle.codebook
        try:
            return CodebookOptions(
                dim=self.dim or known.dim,
                n_words=self.words or 0,
                code_size=self.code_size or known.code_size,
                sample=self.sample,
                global_dim=self.global_dim or known.global_dim,
                seed=self.seed,
            )
        except ValueError as e:
            raise OptionError(str(e)) from e


@dataclass(frozen=True, slots=True)
class FitReport:
    """What was fitted.

    Attributes:
        bundle: id of the new bundle.
        folder: where it is.
        codebook_sha256: of its codebook's file.
        photos, landmarks: of the sample.
        bad: rows of the sample that gave no features; `bad.csv` in the work folder lists them.
        skipped: shards that were found finished.
        figures: what was seen, and what each step loses.
        calibration_of: the bundle whose weights of probability it still has, None for its own.
    """

    bundle: str
    folder: str
    codebook_sha256: str
    photos: int
    landmarks: int
    bad: int
    skipped: int
    figures: Mapping[str, float]
    calibration_of: str | None


def fit_codebook(
    source: str,
    out: Path,
    options: FitOptions | None = None,
    *,
    on_start: Callable[[str, int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> FitReport:
    """Fit a codebook to a sample of a manifest's photos, and put a bundle with it at `out`.

    Started again it goes on where it was: the raw features of finished shards are kept.

    Args:
        source: the manifest, a path or fsspec URL (`photo_tables.read_rows`).
        out: folder of the new bundle: absent, empty, or holding a bundle, which the new one replaces.
        options: see `FitOptions`.
        on_start: called with the address of the dashboard and the number of photos.
        on_progress: called after every shard of features.
        report: called with a line for every step of the fit.

    Raises:
        OptionError: the manifest or an option makes no sense.
        BuildError: shards could not be made, or gave too few features.
        BundleError: the base cannot be used.
    """
    options = options or FitOptions()
    out = resolved(out)
    folder = str(resolved(options.bundle)) if options.bundle else str(default_bundle_path())
    bundle = Bundle.load(folder)
    check_target(out, [Path(given) for given in (folder, source, options.probability) if given and "://" not in given])
    preset = bundle.manifest.default_preset
    extract_options(bundle, preset)
    settings = options.codebook(bundle)
    calibration = None if options.probability is None else read_calibration(Path(options.probability))
    work = located(options.work or f"{out}-work")
    rows = choose(read_rows(source, options.base), options.photos, options.per_landmark, options.seed)
    if not rows:
        raise OptionError(f"{source}: no row below the header; write one row for each photo")
    shards = cut(
        iter(rows),
        options.shard_size,
        bundle=folder,
        bundle_id=bundle.id,
        preset=preset,
        max_pixels=options.max_pixels,
        out=f"{work}/features",
        what="features",
    )
    with connect_cluster(options.scheduler, options.workers) as client:
        if on_start is not None:
            on_start(client.dashboard_link, len(rows))
        names, progress = make_shards(client, shards, f"{work}/features", on_progress)
        check(progress, len(names))
        bad = [row for made in read_manifests(f"{work}/features", iter(names)) for row in made.bad]
        put_bad(work, bad)
        urls = [f"{work}/features/{name}.shard" for name in names]
        fitted = fit_shards(client, urls, bundle.codebook, settings, report)
    landmarks = len({row.landmark for row in rows})
    data = f"Codebook: {len(rows) - len(bad)} photos of {landmarks} landmarks, listed in {source.rpartition('/')[2]}"
    name = options.name or f"{bundle.manifest.name}, codebook of its own"
    made = with_codebook(
        Path(folder),
        out,
        fitted.arrays,
        name=name,
        data=data,
        card=_card(name, bundle, data, rows, bad, options, fitted.report, calibration is None),
        calibration=calibration,
    )
    return FitReport(
        bundle=made.id,
        folder=str(out),
        codebook_sha256=hashlib.sha256((out / made.manifest.codebook).read_bytes()).hexdigest(),
        photos=len(rows),
        landmarks=landmarks,
        bad=len(bad),
        skipped=progress.skipped,
        figures=fitted.report,
        calibration_of=made.manifest.calibration_of,
    )


def _card(
    name: str,
    bundle: Bundle,
    data: str,
    rows: Sequence[PhotoEntry],
    bad: Sequence[BadRow],
    options: FitOptions,
    figures: Mapping[str, float],
    borrowed: bool,
) -> str:
    """MODEL_CARD.md of the new bundle; nothing in it depends on who did the work, where, or when."""
    shown = ("photos", "per_landmark", "sample", "words", "dim", "code_size", "global_dim", "seed", "shard_size")
    settings = ", ".join(f"{k} {v}" for k, v in asdict(options).items() if k in shown and v is not None)
    weights = (
        f"* Probability and threshold are those of bundle {bundle.manifest.calibration_of or bundle.id}, fitted for "
        "another codebook: do not rely on them before they are fitted again."
        if borrowed
        else "* The probability was fitted with this codebook, and holds for photos like those it was fitted on."
    )
    lines = [
        f"# {name} {bundle.manifest.version}",
        "",
        f"Licence of the weights: {bundle.manifest.licence}.",
        "",
        "## Data",
        "",
        *(f"* {line}" for line in (*bundle.manifest.training_data, data)),
        "",
        "## Recipe",
        "",
        f"Networks and presets of bundle {bundle.id} ({bundle.manifest.name}); {NETWORK_CARD} is its card.",
        f"Codebook: `delf-edge fit-codebook`, {settings}; {len(rows)} photos in the sample, {len(bad)} unusable.",
        "",
        "## Figures",
        "",
        *(f"* {key.replace('_', ' ')}: {value:.6g}" for key, value in figures.items()),
        "",
        "## Limits",
        "",
        weights,
    ]
    return "\n".join(lines) + "\n"
