"""The commands that say how good something is: stored photos, this machine, its speed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delf_edge.cli.common import (
    FOUND,
    UNKNOWN,
    BundleOption,
    CommandGroup,
    Database,
    JsonLinesOption,
    JsonOption,
    PresetOption,
    ThreadsOption,
    open_database,
    path_of,
)
from delf_edge.cli.output import counted, print_json, print_json_line, progress, show

if TYPE_CHECKING:
    from delf_edge.diagnostics.reference_quality import Finding

commands = CommandGroup()


@commands.command("lint")
def lint_command(
    database: Database,
    below: Annotated[
        int, typer.Option("--below", metavar="SCORE", min=0, max=100, help="List only images with a lower score.")
    ] = 70,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> int:
    """Say which photos of a database are poor references, and why.

    The score is from 0 to 100. Photos whose files are gone are judged by their codes alone. The exit code is 1 if a
    photo scores less than asked.
    """
    from delf_edge.diagnostics.reference_quality import lint as judge_all

    with open_database(database, bundle, preset, threads, read_only=True) as recognizer:
        findings = []
        with progress("checking", recognizer.info().n_images) as step:
            for finding in judge_all(recognizer):
                findings.append(finding)
                if as_lines and finding.quality.score < below:
                    print_json_line(_finding_json(finding))
                step()
    poor = sorted((f for f in findings if f.quality.score < below), key=lambda f: f.quality.score)
    if as_json:
        rows = [_finding_json(finding) for finding in poor]
        print_json({"database": str(database), "checked": len(findings), "below": below, "images": rows})
    elif not as_lines:
        for f in poor:
            show(f"{f.quality.score:3d}  {f.name} ({f.landmark})")
            for reason in f.quality.reasons:
                show(f"     {reason}")
        show(f"{counted(len(findings), 'image')} checked, {len(poor)} below {below}")
    return UNKNOWN if poor else FOUND


def _finding_json(finding: Finding) -> dict[str, Any]:
    facts = {"name": finding.name, "landmark": finding.landmark, "photo": finding.photo}
    return {**facts, **finding.quality.as_json()}


@commands.command("doctor")
def doctor(bundle: BundleOption = None, threads: ThreadsOption = 1, as_json: JsonOption = False) -> int:
    """Check this machine and the bundle.

    Shows versions and the processor, and runs the network on input whose output is known. The exit code is 1 if
    that differs.
    """
    from delf_edge.diagnostics.doctor import diagnose

    report = diagnose(bundle, num_threads=threads)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        for section in ("versions", "machine", "bundle"):
            for key, value in getattr(report, section).items():
                show(f"{key}: {value}")
        for check in report.checks:
            show(f"{'ok' if check.passed else 'FAILED'}: {check.name}: {check.detail}")
    return FOUND if report.passed else UNKNOWN


@commands.command("bench")
def bench(
    database: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DB]",
            help="What to search; default: a database of the photos.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            "--photos",
            metavar="FOLDER",
            help="What to ask for; default: the demo's photos, or the picture that comes with the bundle.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, max=1000, help="Times that each photo is asked for.")
    ] = 3,
    bundle: BundleOption = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> int:
    """Measure how fast this machine is.

    Medians of extraction with each preset, of each stage of an answer, and of the first answer of a fresh process. The
    owner of a board may contribute the JSON: benchmarks/boards.
    """
    from delf_edge.diagnostics.speed import BenchOptions, as_text, measure_speed

    options = BenchOptions(runs=runs, num_threads=threads)
    result = measure_speed(bundle, database=database, photos=photos, options=options)
    if as_json:
        print_json(result)
    else:
        for line in as_text(result):
            show(line)
    return FOUND if result["self_test"] else UNKNOWN
