"""CSV tables as people's programs write them: other separators, other encodings, other line ends.

Excel separates by semicolons where the decimal sign is a comma, and saves in the Windows code page or in UTF-16; a row
that was emptied stays as a row of separators.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from delf_edge.errors import OptionError
from delf_edge.interchange.photo_entry import column_names

_BLOCK = 1 << 20
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DELIMITERS = ",;\t|"
_log = logging.getLogger(__name__)


def read_csv(
    file: IO[bytes],
    where: str,
    *,
    columns_of: Callable[[Sequence[str], str], list[str]] = column_names,
    wanted: frozenset[str] = frozenset({"path", "landmark"}),
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with the columns `path` and `landmark`, or others; rows without a value are left out.

    Args:
        file: the table, at its beginning.
        where: what to call it in messages.
        columns_of: what the names of the header and `where` make of the columns; raises where they are wrong.
        wanted: columns that tell which separator cuts the header rightly.

    Yields:
        The number of the line that the row ends on, from 1, and its cells by column (`column_names`).

    Raises:
        OptionError: a column is missing, or a row has more cells than there are columns.
        UnicodeDecodeError, csv.Error: it is no such table.
    """
    if not file.seekable():
        file = io.BytesIO(file.read())
    encoding = _encoding(file)
    if encoding == "cp1252":
        _log.warning("%s: not UTF-8; read as Windows-1252, check that names with accents came out right", where)
    with io.TextIOWrapper(file, encoding, newline="") as text:
        head = text.readline()
        skipped = 1 if head.lower().startswith("sep=") else 0  # Excel's own way to name the separator
        if skipped:
            delimiter, head = head[4:5], text.readline()
        else:
            delimiter = max(_DELIMITERS, key=lambda sign: _columns(head, sign, wanted))
        lines = _after(head, text)
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        columns = columns_of(next(reader, []), where)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            line = reader.line_num + skipped
            if any(map(str.strip, cells[len(columns) :])):
                raise OptionError(
                    f"{where}, line {line}: more cells than the header has columns; quote a cell that holds a "
                    f"{_shown(delimiter)}"
                )
            yield line, dict(zip(columns, cells, strict=False))


def _encoding(file: IO[bytes]) -> str:
    """What the table is written in; the file is at its beginning again."""
    head = file.read(4)
    file.seek(0)
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if len(head) == 4 and 0 in head:
        return "utf-16-le" if head[1] == 0 else "utf-16-be"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in iter(lambda: file.read(_BLOCK), b""):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    finally:
        file.seek(0)
    return "utf-8"


def _columns(head: str, delimiter: str, wanted: frozenset[str]) -> tuple[bool, int]:
    """How well a separator cuts a header line: whether the columns are there, and how many there are."""
    names = next(csv.reader([head], delimiter=delimiter, skipinitialspace=True), [])
    known = {name.strip().casefold() for name in names}
    return wanted <= known, len(names)


def _after(head: str, text: io.TextIOWrapper) -> Iterator[str]:
    if head:
        yield head
    yield from text


def _shown(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(delimiter, delimiter)
