"""The commands that exchange databases with other programs: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from delf_edge.cli.common import FOUND, BundleOption, CommandGroup, Database, JsonOption, needs, path_of
from delf_edge.cli.output import print_json, show

commands = CommandGroup()


@commands.command("export")
def export(
    database: Database,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the files.", show_default=False, parser=path_of)
    ],
    descriptors: Annotated[
        bool, typer.Option("--descriptors", help="Also every feature's descriptor as float32, for other engines.")
    ] = False,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write a database as Parquet and GeoJSON, for other programs.

    images.parquet has the metadata and codes of every image, landmarks.geojson the places with coordinates. Needs the
    extra: python -m pip install 'delf-edge[interchange]'.
    """
    with needs("interchange"):
        from delf_edge.interchange.parquet import export_database
    from delf_edge.bundle.bundle import Bundle, default_bundle_path
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        codebook = Bundle.load(bundle or default_bundle_path()) if descriptors else None
        written = export_database(store, out, decode_with=codebook)
    return _show_facts(written, as_json, database=str(database))


@commands.command("import")
def import_(
    database: Database,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder that export wrote.", show_default=False, parser=path_of)
    ],
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> int:
    """Add the images of an export to a database.

    The database is made if it does not exist. The same photo again updates its name, landmark and metadata. Needs the
    extra: python -m pip install 'delf-edge[interchange]'.
    """
    with needs("interchange"):
        from delf_edge.interchange.parquet import import_database
    from delf_edge.bundle.bundle import Bundle, default_bundle_path
    from delf_edge.quantization.packed_codes import CodeLayout
    from delf_edge.storage.store import Store

    loaded = Bundle.load(bundle or default_bundle_path())
    with Store.open(database, bundle_id=loaded.id, layout=CodeLayout.of(loaded.codebook)) as store:
        done = import_database(store, source)
    return _show_facts(done, as_json, database=str(database))


def _show_facts(facts: dict[str, Any], as_json: bool, **more: str) -> int:
    if as_json:
        print_json({**more, **facts})
    else:
        for key, value in facts.items():
            show(f"{key}: {value}")
    return FOUND
