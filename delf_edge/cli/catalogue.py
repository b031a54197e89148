"""`delf-edge catalogue`: what is known of the landmarks of a database, read and changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from delf_edge.cli.common import FOUND, MAX_ROWS, UNKNOWN, CommandGroup, Database, JsonOption, LanguageOption, path_of
from delf_edge.cli.output import print_json, show
from delf_edge.errors import OptionError

if TYPE_CHECKING:
    from delf_edge.catalogue.catalogue import Catalogue
    from delf_edge.catalogue.records import LandmarkRecord

commands = CommandGroup(under="catalogue", help="Texts, pictures, sounds and ids of landmarks: see and change.")

LandmarkArgument = Annotated[str, typer.Argument(metavar="LANDMARK", help="Its slug, or its name.", show_default=False)]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]
TableOption = Annotated[bool, typer.Option("--table", help="Print a table, which is the default.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="csv, tsv, json, jsonl or geojson, where the file's suffix does not say it.",
        show_default=False,
    ),
]


@contextmanager
def _opened(database: Path, mode: Literal["ro", "rw"]) -> Iterator[Catalogue]:
    from delf_edge.catalogue.catalogue import Catalogue
    from delf_edge.storage.store import Store

    with Store.open(database, mode=mode) as store:
        yield Catalogue([store])


@commands.command("list")
def list_landmarks(
    database: Database,
    language: LanguageOption = None,
    as_csv: CsvOption = False,
    as_table: TableOption = False,
    as_json: JsonOption = False,
) -> int:
    """List all landmarks, a row each."""
    with _opened(database, "ro") as catalogue:
        _print_records(database, catalogue, list(catalogue), language, as_csv, as_table, as_json)
    return FOUND


@commands.command("search")
def search_command(
    database: Database,
    query: Annotated[str, typer.Argument(metavar="WORDS", help="What to look for.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=MAX_ROWS, help="Landmarks at most.")] = 20,
    language: LanguageOption = None,
    as_csv: CsvOption = False,
    as_table: TableOption = False,
    as_json: JsonOption = False,
) -> int:
    """Find landmarks by words of their texts, in all languages.

    Capitals and diacritics do not matter, the last word may be unfinished, and words in double quotes stand together.
    The exit code is 1 if nothing is found.
    """
    with _opened(database, "ro") as catalogue:
        found = catalogue.search(query, limit)
        _print_records(database, catalogue, found, language, as_csv, as_table, as_json)
    return FOUND if found else UNKNOWN


@commands.command("show")
def show_landmark(database: Database, landmark: LandmarkArgument, as_json: JsonOption = False) -> int:
    """Show all that is known of a landmark."""
    with _opened(database, "ro") as catalogue:
        record = catalogue.find(landmark)
    if as_json:
        print_json({"database": str(database), **record.as_json()})
        return FOUND
    show(f"{record.slug}: {record.name}")
    where = None if record.latitude is None else f"{record.latitude:g}, {record.longitude:g}"
    facts = {"kind": record.kind, "collection": record.collection, "position": where, "photos": record.n_images}
    for name, value in {**facts, **record.external_ids}.items():
        if value is not None:
            show(f"  {name}: {value}")
    for language, text in record.texts.items():
        show(f"  [{language}] {text.title or record.name}")
        for part in (text.summary, text.body, text.link, text.audio):
            for line in (part or "").splitlines():
                show(f"    {line}")
    for item in record.media:
        show(f"  {item.type}: {item.name}{f', {item.credit}' if item.credit else ''}")
    return FOUND


@commands.command("set")
def set_values(
    database: Database,
    landmark: LandmarkArgument,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="COLUMN=VALUE",
            help="Such as kind=castle, title.pl=Wawel, picture=wawel.jpg; nothing after the sign clears.",
            show_default=False,
        ),
    ],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Change what is known of a landmark; columns as in the tables that import reads."""
    changes: dict[str, Any] = {}
    for value in values:
        column, sign, text = value.partition("=")
        if not sign or not column:
            raise OptionError(f"{value!r}: write column=value, such as kind=castle")
        if column in changes:
            raise OptionError(f"{column} is given twice")
        changes[column] = text or None
    with _opened(database, "rw") as catalogue:
        catalogue.set(landmark, changes, dry_run=dry_run)
        record = catalogue.find(landmark)
    if as_json:
        print_json({"database": str(database), "dry_run": dry_run, **record.as_json()})
    else:
        show(f"{record.slug}: {'would be changed' if dry_run else 'changed'}")
    return FOUND


@commands.command("import")
def import_table(
    database: Database,
    table: Annotated[
        Path, typer.Argument(metavar="FILE", help="The table of landmarks.", show_default=False, parser=path_of)
    ],
    kind: FormatOption = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language", metavar="TAG", help="Of columns such as title that do not name one.", show_default=False
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Take in a table of landmarks: CSV, TSV, JSON, JSON Lines or GeoJSON.

    Landmarks are known by slug or name; new ones are made, others are brought to what the table says. All of it is
    stored or, where something is wrong, nothing. Columns that are not understood are named.
    """
    with _opened(database, "rw") as catalogue:
        report = catalogue.import_file(table, kind=kind, language=language, dry_run=dry_run)
    if as_json:
        print_json({"database": str(database), "table": str(table), **dataclasses.asdict(report)})
        return FOUND
    would = "would be " if dry_run else ""
    show(
        f"{report.created} landmarks {would}created, {report.updated} {would}updated, {report.unchanged} unchanged; "
        f"{report.texts} texts and {report.media} media {would}written"
    )
    for column in report.not_understood:
        show(f"not understood: {column}")
    return FOUND


@commands.command("export")
def export_table(
    database: Database,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False, parser=path_of)],
    kind: FormatOption = None,
    media: Annotated[bool, typer.Option("--media/--no-media", help="With pictures and sounds.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Write the catalogue to a file, which import reads back."""
    if out.exists() and not overwrite:
        raise OptionError(f"{out}: exists already; choose another name, or pass --overwrite")
    if out.exists() and out.samefile(database):
        raise OptionError(f"{out}: is the database itself")
    with _opened(database, "ro") as catalogue:
        n = catalogue.export_file(out, kind=kind, media=media)
    if as_json:
        print_json({"database": str(database), "file": str(out), "landmarks": n})
    else:
        show(f"{out}: {n} landmarks, {out.stat().st_size} bytes")
    return FOUND


@commands.command("rename")
def rename_in_catalogue(
    database: Database,
    landmark: LandmarkArgument,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Its new name.", show_default=False)] = None,
    slug: Annotated[
        str | None, typer.Option("--slug", metavar="SLUG", help="Its new slug; else it stays.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Give a landmark another name; photos, texts and position stay with it."""
    with _opened(database, "rw") as catalogue:
        record = catalogue.rename(landmark, name, slug=slug)
    _print_one(database, record, "is its name now", as_json)
    return FOUND


@commands.command("merge")
def merge_in_catalogue(
    database: Database,
    landmark: LandmarkArgument,
    into: Annotated[str, typer.Argument(metavar="INTO", help="The landmark that stays.", show_default=False)],
    prefer: Annotated[
        str | None,
        typer.Option(
            "--prefer",
            metavar="old|new",
            help="Whose text stays where both have one in a language: LANDMARK's (old) or INTO's (new).",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Make two landmarks one: photos, texts, media and position go to the second."""
    if prefer not in (None, "old", "new"):
        raise OptionError(f"--prefer {prefer}: must be old or new")
    choice: Literal["old", "new"] | None = None if prefer is None else "old" if prefer == "old" else "new"
    with _opened(database, "rw") as catalogue:
        record = catalogue.merge(landmark, into, prefer=choice)
    _print_one(database, record, f"has {record.n_images} photos now", as_json)
    return FOUND


@commands.command("prune")
def prune(database: Database, dry_run: DryRunOption = False, as_json: JsonOption = False) -> int:
    """Remove landmarks that no photo shows, with all that is known of them."""
    with _opened(database, "rw") as catalogue:
        slugs = catalogue.prune(dry_run=dry_run)
    if as_json:
        print_json({"database": str(database), "dry_run": dry_run, "removed": slugs})
    else:
        for slug in slugs:
            show(slug)
        show(f"{len(slugs)} landmarks {'would be ' if dry_run else ''}removed")
    return FOUND


def _print_one(database: Path, record: LandmarkRecord, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"database": str(database), **record.as_json()})
    else:
        show(f"{record.slug}: {record.name} {what}")


def _print_records(
    database: Path,
    catalogue: Catalogue,
    records: Sequence[LandmarkRecord],
    language: str | None,
    as_csv: bool,
    as_table: bool,
    as_json: bool,
) -> None:
    from delf_edge.catalogue.languages import check_language
    from delf_edge.catalogue.reader import describe

    if as_json + as_csv + as_table > 1:
        raise OptionError("--json, --csv and --table are three forms of the same output; give one of them")
    languages = [] if language is None else [check_language(language)]
    if as_json:
        print_json({"database": str(database), "landmarks": [record.as_json() for record in records]})
    elif as_csv:
        from delf_edge.catalogue.exporter import full_record, table

        for line in table([full_record(catalogue, record, media=False) for record in records]).splitlines():
            show(line)
    else:
        from tabulate import tabulate

        rows = [(r.slug, describe(r, languages).title, r.kind, r.n_images, " ".join(r.texts)) for r in records]
        for line in tabulate(rows, ["slug", "title", "kind", "photos", "languages"]).splitlines():
            show(line)
