"""The command line: parse, call, print. Results go to stdout, progress and complaints to stderr.

Exit codes: 0 found or done; 1 unknown, a failed check, or a photo that could not be indexed; 2 wrong usage or bad
input; 130 interrupted. Heavy modules are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delf_edge.cli.common import (
    BAD_INPUT,
    FOUND,
    UNKNOWN,
    BundleOption,
    Database,
    JsonOption,
    NearOption,
    PacksOption,
    Photo,
    PresetOption,
    ThreadsOption,
    app,
)
from delf_edge.cli.common import command as _command
from delf_edge.cli.common import error_json as _error_json
from delf_edge.cli.common import open_database as _open
from delf_edge.cli.common import print_json as _print_json
from delf_edge.cli.common import progress as _progress
from delf_edge.cli.common import say as _say
from delf_edge.errors import DelfEdgeError, OptionError

if TYPE_CHECKING:
    from delf_edge.query.pipeline import IdentifyOptions
    from delf_edge.storage.store import Store
    from delf_edge.types import Answer


def _match_json(answer: Answer) -> list[dict[str, Any]]:
    return [dataclasses.asdict(match) for match in answer.matches]


def _answer_json(photo: Path, answer: Answer) -> dict[str, Any]:
    """An `Answer` as JSON; the matched points are in `explain`."""
    return {
        "photo": str(photo),
        "landmark": answer.landmark,
        "image": answer.image,
        "probability": answer.probability,
        "n_inliers": answer.n_inliers,
        "reason": answer.reason,
        "matches": _match_json(answer),
        "milliseconds": dict(answer.milliseconds),
    }


def _print_answer(photo: Path, answer: Answer) -> None:
    """The answer, the runners-up and the time of each stage, as text."""
    typer.echo(f"{photo}: {answer.landmark or 'unknown'}")
    typer.echo(f"  {answer.reason}")
    if answer.matches:
        width = max(len(match.landmark) for match in answer.matches)
        typer.echo(f"  {'landmark':{width}}  probability  inliers  image")
        for match in answer.matches:
            typer.echo(f"  {match.landmark:{width}}  {match.probability:11.3f}  {match.n_inliers:7d}  {match.name}")
    if answer.milliseconds:
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in answer.milliseconds.items())
        typer.echo(f"  milliseconds: {stages}")


@_command("index")
def index(
    database: Database,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Photos; each subfolder is a landmark.", show_default=False)
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="CSV",
            help="Table of photos with the columns path (below FOLDER) and landmark, optionally name, latitude and "
            "longitude (of the landmark, degrees); further columns become metadata.",
            show_default=False,
        ),
    ] = None,
    landmark: Annotated[
        str | None,
        typer.Option("--landmark", metavar="NAME", help="All photos below FOLDER show this one.", show_default=False),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep a small JPEG of each photo, for showing it without its file.")
    ] = False,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> int:
    """Add the photos of a folder.

    The database is made if it does not exist. What is already in is skipped, so an interrupted run goes on where it
    stopped. A photo that cannot be read is one line on stderr; the exit code is then 1.
    """
    from delf_edge.interchange.photo_lists import list_folder, read_manifest
    from delf_edge.recognizer import AddError, AddItem

    if manifest is not None and landmark is not None:
        raise OptionError("--manifest and --landmark both say what the photos show; give one of them")
    homeless: list[str] = []
    if manifest is not None:
        photos = read_manifest(manifest, folder)
    else:
        photos, homeless = list_folder(folder, landmark)
    counts = {"added": 0, "unchanged": 0, "updated": 0, "replaced": 0}
    failed = [{"name": name, "error": "lies in no subfolder, so its landmark is not known"} for name in homeless]
    for failure in failed:
        _say(f"{failure['name']}: {failure['error']}")
    items = (
        AddItem(p.path, p.landmark, p.name, {**p.metadata, "path": str(p.path.resolve())}, thumbnail=thumbnails)
        for p in photos
    )
    with _open(database, bundle, preset, threads, read_only=False) as places:
        with _progress("indexing", len(photos)) as step:
            for result in places.add_many(items, on_error="collect"):
                if isinstance(result, AddError):
                    failed.append({"name": result.name, "error": str(result.error)})
                    step(f"{result.name}: {result.error}")
                else:
                    counts[result.status] += 1
                    step()
        _set_positions(places.store, {p.landmark: p.position for p in photos if p.position is not None})
        info = places.info()
    if as_json:
        totals = {"images": info.n_images, "landmarks": info.n_landmarks, "bytes": info.bytes}
        _print_json({"database": str(database), **counts, "failed": failed, **totals})
    else:
        done = ", ".join(f"{n} {what}" for what, n in {**counts, "failed": len(failed)}.items())
        typer.echo(f"{done}; {database} holds {info.n_images} images of {info.n_landmarks} landmarks")
    return UNKNOWN if failed else FOUND


def _set_positions(store: Store, positions: Mapping[str, tuple[float, float]]) -> None:
    """Write the coordinates of those of the landmarks that are in the database and have others."""
    for place in store.landmarks():
        at = positions.get(place.name)
        if at is not None and at != (place.latitude, place.longitude):
            store.set_landmark(place.name, metadata=place.metadata, latitude=at[0], longitude=at[1])


@_command("identify")
def identify(
    database: Database,
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="The photos.", show_default=False)],
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Landmarks to list for each photo.")] = 5,
    near: NearOption = None,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    packs: PacksOption = None,
    as_json: JsonOption = False,
) -> int:
    """Name the place that each photo shows.

    The exit code is 0 if every photo was recognised, 1 if one is unknown, 2 if one cannot be read.
    """
    options = _near(near)
    rows: list[dict[str, Any]] = []
    code = FOUND
    with (
        _open(database, bundle, preset, threads, read_only=True, packs=packs) as places,
        _progress("looking", len(photos)) as step,
    ):
        for photo in photos:
            try:
                answer = places.identify(photo, top=top, options=options)
            except (DelfEdgeError, OSError) as e:
                if not isinstance(e, ValueError | OSError):
                    raise  # not this photo but the database or the bundle
                rows.append({"photo": str(photo), "error": _error_json(e)})
                code = BAD_INPUT
                step(f"{photo}: {e}")
                continue
            step()
            rows.append(_answer_json(photo, answer))
            code = code if answer.found else max(code, UNKNOWN)
            if not as_json:
                _print_answer(photo, answer)
    if as_json:
        _print_json({"database": str(database), "answers": rows})
    return code


@_command("explain")
def explain(
    database: Database,
    photo: Photo,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The picture to write, .png or .jpg.", show_default=False)
    ],
    near: NearOption = None,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    packs: PacksOption = None,
    as_json: JsonOption = False,
) -> int:
    """Draw the proof of an answer.

    Both photos, a line for each inlier, and the outline of the place that was found. An unknown photo is drawn with
    the best candidate, and the exit code is 1.
    """
    options = _near(near)
    with _open(database, bundle, preset, threads, read_only=True, packs=packs) as places:
        explanation = places.explain(photo, options=options)
    from delf_edge.diagnostics.match_drawing import draw, save_picture

    save_picture(draw(explanation), out)
    answer = explanation.answer
    if as_json:
        points = {
            "query_keypoints": explanation.query_keypoints.tolist(),
            "stored_keypoints": explanation.stored_keypoints.tolist(),
        }
        _print_json({**_answer_json(photo, answer), "picture": str(out), **points})
    else:
        _print_answer(photo, answer)
        typer.echo(f"  picture: {out}")
    return FOUND if answer.found else UNKNOWN


@_command("remove")
def remove(
    database: Database,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Images to remove.", show_default=False)
    ] = None,
    landmark: Annotated[
        str | None,
        typer.Option("--landmark", metavar="NAME", help="Remove all images of this landmark.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Remove images, or a landmark.

    It takes effect at once, also for programs that have the database open.
    """
    from delf_edge.storage.store import Store

    if bool(names) == (landmark is not None):
        raise OptionError("name the images to remove, or a landmark with --landmark; one of the two")
    with Store.open(database) as store:
        wanted = list(names or [])
        if landmark is not None:
            wanted = [image.name for image in store.images() if image.landmark == landmark]
            if not wanted:
                raise OptionError(f"{database}: no image shows a landmark called {landmark!r}; see `delf-edge info`")
        store.remove(*wanted)
    if as_json:
        _print_json({"database": str(database), "removed": wanted})
    else:
        typer.echo(f"removed {len(wanted)} images")
    return FOUND


@_command("relabel")
def relabel(
    database: Database,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the image.", show_default=False)],
    landmark: Annotated[str, typer.Argument(metavar="LANDMARK", help="The landmark it shows.", show_default=False)],
    as_json: JsonOption = False,
) -> int:
    """Say that an image shows another landmark."""
    from delf_edge.storage.store import Store

    with Store.open(database) as store:
        store.relabel(name, landmark)
    if as_json:
        _print_json({"database": str(database), "name": name, "landmark": landmark})
    else:
        typer.echo(f"{name} shows {landmark}")
    return FOUND


@_command("locate")
def locate(
    database: Database,
    landmark: Annotated[str, typer.Argument(metavar="LANDMARK", help="The landmark.", show_default=False)],
    at: Annotated[
        str, typer.Option("--at", metavar="LAT,LON", help="Degrees, south and west negative.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> int:
    """Say where a landmark is.

    A camera that knows its own position then takes only the landmarks around it for candidates: `identify --near`.
    """
    from delf_edge.geo import parse_position
    from delf_edge.storage.store import Store

    latitude, longitude = _numbers(at, 2, f"--at {at}: give latitude,longitude in degrees")
    with Store.open(database) as store:
        if landmark not in {place.name for place in store.landmarks()}:
            raise OptionError(f"{database}: no landmark is called {landmark!r}; see `delf-edge info`")
        position = parse_position(latitude, longitude)
        if position is not None:
            _set_positions(store, {landmark: position})
    if as_json:
        _print_json({"database": str(database), "landmark": landmark, "latitude": latitude, "longitude": longitude})
    else:
        typer.echo(f"{landmark} is at latitude {latitude:g}, longitude {longitude:g}")
    return FOUND


def _near(text: str | None) -> IdentifyOptions | None:
    """The options that --near stands for."""
    if text is None:
        return None
    from delf_edge.geo import Near
    from delf_edge.query.pipeline import IdentifyOptions

    return IdentifyOptions(near=Near(*_numbers(text, 3, f"--near {text}: give latitude,longitude,metres")))


def _numbers(text: str, n: int, complaint: str) -> list[float]:
    """n numbers between commas."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as e:
        raise OptionError(complaint) from e
    if len(numbers) != n:
        raise OptionError(complaint)
    return numbers


@_command("info")
def info(database: Database, as_json: JsonOption = False) -> int:
    """Say what is in a database."""
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        facts = dataclasses.asdict(store.info())
        landmarks = {landmark.name: landmark.n_images for landmark in store.landmarks()}
        damaged = list(store.damaged.values())
    if as_json:
        _print_json({**facts, "landmarks": landmarks, "damaged": damaged})
        return FOUND
    for key, value in facts.items():
        typer.echo(f"{key.replace('_', ' ')}: {value}")
    for name, count in landmarks.items():
        typer.echo(f"  {count:6d}  {name}")
    for what in damaged:
        _say(what)
    return FOUND


@_command("verify")
def verify(database: Database, as_json: JsonOption = False) -> int:
    """Check every page and every checksum.

    The exit code is 1 if something is damaged.
    """
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        n_images = len(store)
        problems = store.verify()
    if as_json:
        found = [dataclasses.asdict(problem) for problem in problems]
        _print_json({"database": str(database), "images": n_images, "problems": found})
    else:
        for problem in problems:
            typer.echo(f"{problem.table}: {problem.name}: {problem.what}")
        typer.echo(f"{n_images} images checked, {len(problems)} problems")
    return UNKNOWN if problems else FOUND


@_command("seal")
def seal(
    database: Database,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Seal a copy of this name and leave DB as it is.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Make one compact read-only file.

    It can be read from read-only media, which a database in use cannot.
    """
    from delf_edge.storage.store import Store

    target = database if out is None else out
    if out is not None:
        with Store.open(database, mode="ro") as store:
            store.snapshot(out)
    with Store.open(target) as store:
        store.seal()
    size = target.stat().st_size
    if as_json:
        _print_json({"database": str(database), "sealed": str(target), "bytes": size})
    else:
        typer.echo(f"{target}: sealed, {size} bytes")
    return FOUND


@_command("snapshot")
def snapshot(
    database: Database,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The copy.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Copy a database while it is in use."""
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        n_images = len(store)
        store.snapshot(out, overwrite=overwrite)
    size = out.stat().st_size
    if as_json:
        _print_json({"database": str(database), "snapshot": str(out), "images": n_images, "bytes": size})
    else:
        typer.echo(f"{out}: {n_images} images, {size} bytes")
    return FOUND


@_command("lint")
def lint(
    database: Database,
    below: Annotated[
        int, typer.Option("--below", metavar="SCORE", min=0, max=100, help="List only images with a lower score.")
    ] = 70,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> int:
    """Say which photos of a database are poor references, and why.

    The score is from 0 to 100. Photos whose files are gone are judged by their codes alone. The exit code is 1 if a
    photo scores less than asked.
    """
    from delf_edge.diagnostics.reference_quality import lint as look

    with _open(database, bundle, preset, threads, read_only=True) as places:
        findings = []
        with _progress("looking", places.info().n_images) as step:
            for finding in look(places):
                findings.append(finding)
                step()
    poor = sorted((f for f in findings if f.quality.score < below), key=lambda f: f.quality.score)
    if as_json:
        rows = [{"name": f.name, "landmark": f.landmark, "photo": f.photo, **f.quality.as_json()} for f in poor]
        _print_json({"database": str(database), "checked": len(findings), "below": below, "images": rows})
    else:
        for f in poor:
            typer.echo(f"{f.quality.score:3d}  {f.name} ({f.landmark})")
            for reason in f.quality.reasons:
                typer.echo(f"     {reason}")
        typer.echo(f"{len(findings)} images checked, {len(poor)} below {below}")
    return UNKNOWN if poor else FOUND


@_command("serve")
def serve(
    database: Database,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="Port to listen on.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Name that browsers call it by.", show_default=False),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the token for changes; default: the variable DELF_EDGE_TOKEN, or a new one each time.",
            show_default=False,
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Allow no changes.")] = False,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    packs: PacksOption = None,
    as_json: JsonOption = False,
) -> int:
    """Serve the kiosk page and its service, until it is stopped.

    The page is for this machine alone unless --host says otherwise; from another machine everything needs the token.
    Needs the extra: python -m pip install 'delf-edge[web]'.
    """
    try:
        from delf_edge.web.app import ServiceOptions, create_app
        from delf_edge.web.security import Policy, is_loopback
        from delf_edge.web.server import address_of, read_token
        from delf_edge.web.server import serve as run
    except ImportError as e:
        raise OptionError(f"{e}; install the web extra: python -m pip install 'delf-edge[web]'") from e
    token, is_new = read_token(token_file)
    names = frozenset(name.lower() for name in [host, *(allow_host or [])])
    policy = Policy(token, names, loopback_only=is_loopback(host))
    with _open(database, bundle, preset, threads, read_only=read_only, packs=packs) as places:
        url = address_of(host, port, token if is_new and not read_only else None)
        if as_json:
            _print_json({"database": str(database), "url": url, "read_only": read_only})
        else:
            typer.echo(url)
        run(create_app(places, ServiceOptions(policy)), host, port)
    return FOUND


@_command("doctor")
def doctor(bundle: BundleOption = None, threads: ThreadsOption = 1, as_json: JsonOption = False) -> int:
    """Check this machine and the bundle.

    Shows versions and the processor, and runs the network on input whose output is known. The exit code is 1 if
    that differs.
    """
    from delf_edge.diagnostics.doctor import diagnose

    report = diagnose(bundle, num_threads=threads)
    if as_json:
        _print_json(dataclasses.asdict(report))
    else:
        for section in ("versions", "machine", "bundle"):
            for key, value in getattr(report, section).items():
                typer.echo(f"{key}: {value}")
        for check in report.checks:
            typer.echo(f"{'ok' if check.passed else 'FAILED'}: {check.name}: {check.detail}")
    return FOUND if report.passed else UNKNOWN


@_command("bench")
def bench(
    database: Annotated[
        Path | None,
        typer.Argument(metavar="[DB]", help="What to search; default: a database of the photos.", show_default=False),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            "--photos",
            metavar="FOLDER",
            help="What to ask for; default: the demo's photos, or the picture that comes with the bundle.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", metavar="N", min=1, help="Times that each photo is asked for.")] = 3,
    bundle: BundleOption = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> int:
    """Measure how fast this machine is.

    Medians of extraction with each preset, of each stage of an answer, and of the first answer of a fresh process. The
    owner of a board may contribute the JSON: benchmarks/boards.
    """
    from delf_edge.diagnostics.speed import BenchOptions, as_text, measure

    options = BenchOptions(runs=runs, num_threads=threads)
    result = measure(bundle, database=database, photos=photos, options=options)
    if as_json:
        _print_json(result)
    else:
        for line in as_text(result):
            typer.echo(line)
    return FOUND if result["self_test"] else UNKNOWN


import delf_edge.cli.distributed  # noqa: E402
import delf_edge.cli.packs  # noqa: E402, F401  (their commands come after these)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `delf-edge`.

    Args:
        arguments: what follows the program's name; None takes them from `sys.argv`.

    Raises:
        SystemExit: always, with the exit code.
    """
    app(list(arguments) if arguments is not None else None)


if __name__ == "__main__":
    main()
