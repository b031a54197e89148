"""The catalogue as a file: CSV, TSV, JSON, JSON Lines or GeoJSON; imported again it gives the same catalogue."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from delf_edge.catalogue.reader import CatalogueReader
from delf_edge.catalogue.records import TEXT_FIELDS, LandmarkRecord
from delf_edge.errors import NotFoundError

_FIRST = ("slug", "name", "kind", "collection", "latitude", "longitude")


def full_record(reader: CatalogueReader, record: LandmarkRecord, *, media: bool = True) -> dict[str, Any]:
    """A landmark as JSON with the bytes of its media, as `import` reads it."""
    found = record.as_json()
    found["media"] = []
    for item in record.media if media else ():
        entry = {key: value for key, value in item.as_json().items() if key != "id"}
        if item.path is None:
            try:
                entry["data"] = base64.b64encode(reader.media(record.slug, item.name).data).decode()
            except NotFoundError:  # damaged: `verify` names it
                continue
        found["media"].append(entry)
    return found


def render(reader: CatalogueReader, kind: str, *, media: bool = True) -> Iterator[str]:
    """The parts of a file in one of `tables.FORMATS`, in order."""
    records = (full_record(reader, record, media=media) for record in reader)
    if kind == "jsonl":
        yield from (_dump(record) + "\n" for record in records)
    elif kind == "json":
        yield from _joined('{"landmarks": [', records, "]}\n")
    elif kind == "geojson":
        yield from _joined('{"type": "FeatureCollection", "features": [', map(_feature, records), "]}\n")
    else:
        yield table(list(records), "\t" if kind == "tsv" else ",")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _joined(head: str, items: Iterable[Any], tail: str) -> Iterator[str]:
    yield head
    for number, item in enumerate(items):
        yield (",\n" if number else "\n") + _dump(item)
    yield "\n" + tail


def _feature(record: dict[str, Any]) -> dict[str, Any]:
    latitude, longitude = record.pop("latitude"), record.pop("longitude")
    point = None if latitude is None else {"type": "Point", "coordinates": [longitude, latitude]}
    return {"type": "Feature", "geometry": point, "properties": record}


def table(records: list[dict[str, Any]], delimiter: str = ",") -> str:
    """Landmarks as delimited text, one a row, with columns for each language that one of them has."""
    languages = sorted({language for record in records for language in record["texts"]})
    used = {(f, language) for r in records for language, text in r["texts"].items() for f in text}
    columns = [f"{field}.{language}" for language in languages for field in TEXT_FIELDS if (field, language) in used]
    ids = sorted({name for record in records for name in record["external_ids"]})
    header = [*_FIRST, *(f"ids.{name}" for name in ids), *columns, "metadata", "media", "images"]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    for record in records:
        texts = [record["texts"].get(column.partition(".")[2], {}).get(column.partition(".")[0]) for column in columns]
        known = [record["external_ids"].get(name) for name in ids]
        more = [_dump(record[key]) if record[key] else None for key in ("metadata", "media")]
        writer.writerow([*(record[key] for key in _FIRST), *known, *texts, *more, record["images"]])
    return out.getvalue()
