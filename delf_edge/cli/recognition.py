"""The commands that ask: which place does a photo show, and what proves it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delf_edge.cli.common import (
    BAD_INPUT,
    FOUND,
    MAX_ROWS,
    UNKNOWN,
    BundleOption,
    CommandGroup,
    Database,
    JsonLinesOption,
    JsonOption,
    LanguageOption,
    LimitOption,
    NearOption,
    PacksOption,
    Photo,
    PresetOption,
    ThreadsOption,
    UprightOption,
    naming,
    open_database,
    parse_numbers,
    path_of,
)
from delf_edge.cli.output import complaint, error_json, print_json, print_json_line, progress, show
from delf_edge.errors import ImageError, OptionError

if TYPE_CHECKING:
    from delf_edge.query.options import IdentifyOptions
    from delf_edge.types import Answer

commands = CommandGroup()

PIPE = Path("-")


@commands.command("identify")
def identify_command(
    database: Database,
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO",
            help="The photos; a folder means all photos in it, - one that comes through a pipe.",
            show_default=False,
            parser=path_of,
        ),
    ],
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, max=MAX_ROWS, help="Landmarks to list for each photo.")
    ] = 5,
    near: NearOption = None,
    upright: UprightOption = False,
    language: LanguageOption = None,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    max_megapixels: LimitOption = None,
    packs: PacksOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> int:
    """Name the place that each photo shows.

    The exit code is 0 if every photo was recognised, 1 if one is unknown, 2 if one cannot be read.
    """
    options = _options(near, upright, language)
    wanted = _photos(photos)
    rows: list[dict[str, Any]] = []
    code = FOUND
    with (
        open_database(
            database, bundle, preset, threads, read_only=True, packs=packs, max_megapixels=max_megapixels
        ) as recognizer,
        progress("identifying", len(wanted)) as step,
    ):
        for photo in wanted:
            try:
                answer = recognizer.identify(_source(photo), top=top, options=options)
            except ImageError as e:  # other errors are of the database or the bundle, and end the command
                row = {"photo": str(photo), "error": error_json(e)}
                code = BAD_INPUT
                step(complaint(str(photo), e))
            else:
                row = _answer_json(photo, answer)
                code = code if answer.found else max(code, UNKNOWN)
                if not (as_json or as_lines):
                    _print_answer(photo, answer)
                step()
            if as_lines:
                print_json_line(row)
            elif as_json:
                rows.append(row)
    if as_json:
        print_json({"database": str(database), "answers": rows})
    return code


@commands.command("explain")
def explain(
    database: Database,
    photo: Photo,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="The picture to write, .png or .jpg.", show_default=False, parser=path_of
        ),
    ],
    near: NearOption = None,
    upright: UprightOption = False,
    language: LanguageOption = None,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    max_megapixels: LimitOption = None,
    packs: PacksOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file, even if explain has not made it.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Draw the proof of an answer.

    Both photos, a line for each inlier, and the outline of the place that was found. An unknown photo is drawn with
    the best candidate, and the exit code is 1. A picture that explain made before is replaced.
    """
    from delf_edge.diagnostics.match_drawing import draw, is_own_picture, save_picture
    from delf_edge.files import require_apart

    inputs = [database, *(packs or []), *([] if photo == PIPE else [photo]), *([] if bundle is None else [bundle])]
    require_apart(out, inputs)
    if photo != PIPE and out.exists() and photo.exists() and out.samefile(photo):
        raise OptionError(f"{out}: is {photo} under another name; write to another place")
    if out.exists() and not overwrite and not is_own_picture(out):
        raise OptionError(f"{out}: exists already, and explain has not made it; choose another name, or --overwrite it")
    options = _options(near, upright, language)
    with open_database(
        database, bundle, preset, threads, read_only=True, packs=packs, max_megapixels=max_megapixels
    ) as recognizer:
        explanation = recognizer.explain(_source(photo), options=options)
    stored = explanation.stored
    if stored is not None and isinstance(stored.metadata.get("path"), str):
        require_apart(out, [stored.metadata["path"]])
    save_picture(draw(explanation), out)
    answer = explanation.answer
    if as_json:
        points = {
            "query_keypoints": explanation.query_keypoints.tolist(),
            "stored_keypoints": explanation.stored_keypoints.tolist(),
        }
        print_json({**_answer_json(photo, answer), "picture": str(out), **points})
    else:
        _print_answer(photo, answer)
        show(f"  picture: {out}")
    return FOUND if answer.found else UNKNOWN


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
        "info": None if answer.info is None else dataclasses.asdict(answer.info),
    }


def _match_json(answer: Answer) -> list[dict[str, Any]]:
    return [dataclasses.asdict(match) for match in answer.results]


def _print_answer(photo: Path, answer: Answer) -> None:
    """The answer, the runners-up and the time of each stage, as text."""
    show(f"{photo}: {answer.landmark or 'unknown'}")
    show(f"  {answer.reason}")
    if answer.info is not None and answer.info.language is not None:
        show(f"  {answer.info.title}{f': {answer.info.summary}' if answer.info.summary else ''}")
    if answer.results:
        width = max(len(match.landmark) for match in answer.results)
        show(f"  {'landmark':{width}}  probability  inliers  image")
        for match in answer.results:
            show(f"  {match.landmark:{width}}  {match.probability:11.3f}  {match.n_inliers:7d}  {match.name}")
    if answer.milliseconds:
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in answer.milliseconds.items())
        show(f"  milliseconds: {stages}")


def _photos(named: list[Path]) -> list[Path]:
    """The photos that are named, and those in the folders that are.

    Raises:
        OptionError: there is no photo in a folder, or - is a keyboard.
    """
    from delf_edge.interchange.photo_lists import list_folder

    found: list[Path] = []
    for path in named:
        if path == PIPE and sys.stdin is not None and sys.stdin.isatty():
            raise OptionError("-: a photo is expected from a pipe, as in `delf-edge identify DB - < PHOTO`")
        found += [photo.path for photo in list_folder(path, "any")[0]] if path.is_dir() else [path]
    return found


def _source(photo: Path) -> Path | bytes:
    """What the recogniser reads: the file, or the bytes that come through a pipe."""
    if photo != PIPE:
        return photo
    if sys.stdin is None:
        raise OptionError("-: stdin is closed")
    from delf_edge.images.limits import ImageLimits

    return sys.stdin.buffer.read(ImageLimits().max_bytes + 1)


def _options(near: str | None, upright: bool, language: str | None) -> IdentifyOptions:
    """The options that --near, --upright and --language stand for."""
    from delf_edge.catalogue.languages import check_language
    from delf_edge.geo import Near
    from delf_edge.query.options import IdentifyOptions

    languages = () if language is None else (check_language(language),)
    options = IdentifyOptions(turns=not upright, languages=languages)
    if near is None:
        return options
    numbers = parse_numbers(near, 3, f"--near {near}: give latitude,longitude,metres")
    with naming("--near", near):
        return dataclasses.replace(options, near=Near(*numbers))
