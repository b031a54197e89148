"""Full-text search over the texts of landmarks: SQLite's FTS5, which holds the words and reads the texts in place.

Its words must be taken out before a text changes and put in afterwards, which `words_follow` does; there is no trigger.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from delf_edge.storage.schema import Value

_FTS = "landmark_texts_fts"
_COLUMNS = "title, summary, body"
_SHADOWS = {f"{_FTS}_data": "id, block", f"{_FTS}_idx": "segid, term, pgno"}
_SHADOWS |= {f"{_FTS}_docsize": "id, sz", f"{_FTS}_config": "k, v"}
_AT_ONCE = 500
_COMPARED = 500  # texts that are compared with each other at most
_LETTERS = (("ł", "l"), ("ø", "o"), ("đ", "d"), ("ß", "ss"), ("æ", "ae"), ("œ", "oe"), ("þ", "th"), ("ı", "i"))
_SPELLINGS, _POSITIONS = 16, 2  # of a word that are tried, and letters of a kind in it that are changed one by one


@contextmanager
def words_follow(db: sqlite3.Connection, text_ids: Sequence[Value]) -> Iterator[None]:
    """Whatever the block writes to these texts, the search finds it afterwards."""
    forget_words(db, text_ids)
    yield
    for ids, marks in _chunks(text_ids):
        select = f"SELECT id, {_COLUMNS} FROM landmark_texts WHERE id IN ({marks}) ORDER BY id"
        db.execute(f"INSERT INTO {_FTS} (rowid, {_COLUMNS}) {select}", ids)


def forget_words(db: sqlite3.Connection, text_ids: Sequence[Value]) -> None:
    """Take texts out of the search, before they are changed or deleted; absent ones are ignored."""
    for ids, marks in _chunks(text_ids):
        select = f"SELECT 'delete', id, {_COLUMNS} FROM landmark_texts WHERE id IN ({marks}) ORDER BY id"
        db.execute(f"INSERT INTO {_FTS} ({_FTS}, rowid, {_COLUMNS}) {select}", ids)


def _chunks(text_ids: Sequence[Value]) -> Iterator[tuple[tuple[Value, ...], str]]:
    for i in range(0, len(text_ids), _AT_ONCE):
        ids = tuple(text_ids[i : i + _AT_ONCE])
        yield ids, ", ".join("?" * len(ids))


def rebuild_words(db: sqlite3.Connection) -> None:
    """Make the search anew from the texts, whatever state it is in; equal texts give equal bytes."""
    db.execute(f"DELETE FROM {_FTS}_config")
    db.execute(f"INSERT INTO {_FTS}_config VALUES ('version', 4)")  # damaged, it would forbid even 'rebuild'
    db.execute(f"INSERT INTO {_FTS} ({_FTS}) VALUES ('rebuild')")


def words_differ(db: sqlite3.Connection) -> bool:
    """Whether the search is damaged or holds other words than the texts.

    FTS5's own check counts as a write, so its tables and the texts are copied into memory and checked there.
    """
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        copy.execute(f"CREATE TABLE landmark_texts (id INTEGER PRIMARY KEY, {_COLUMNS})")
        copy.execute(_schema_of(db))
        _copy_rows(db, copy, "landmark_texts", f"id, {_COLUMNS}")
        for table, columns in _SHADOWS.items():
            copy.execute(f"DELETE FROM {table}")
            _copy_rows(db, copy, table, columns)
        fresh = sqlite3.connect(":memory:", isolation_level=None)
        try:
            fresh.deserialize(copy.serialize())  # a connection that has not cached what was there before
            fresh.execute(f"INSERT INTO {_FTS} ({_FTS}, rank) VALUES ('integrity-check', 1)")
            if _words_not_found(fresh):
                return True
        except sqlite3.DatabaseError:
            return True
        finally:
            fresh.close()
        return False
    finally:
        copy.close()


def _words_not_found(db: sqlite3.Connection) -> bool:
    """Whether looking a word up leads elsewhere than where it is: the check of FTS5 walks past the way in."""
    db.execute(f"CREATE VIRTUAL TABLE words USING fts5vocab('{_FTS}', 'row')")
    count = f"SELECT count(*) FROM {_FTS} WHERE {_FTS} MATCH ?"
    words = db.execute("SELECT term, doc FROM words").fetchall()
    return any(db.execute(count, (f'"{word}"',)).fetchone()[0] != n for word, n in words)


def _schema_of(db: sqlite3.Connection) -> str:
    (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (_FTS,)).fetchone()
    return str(sql)


def _copy_rows(db: sqlite3.Connection, copy: sqlite3.Connection, table: str, columns: str) -> None:
    marks = ", ".join("?" * len(columns.split(",")))
    copy.execute("BEGIN")
    rows = db.execute(f"SELECT {columns} FROM {table}")
    copy.executemany(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", rows)
    copy.execute("COMMIT")


def search_words(db: sqlite3.Connection, query: str, limit: int) -> list[tuple[int, float]]:
    """(id of a text, score) of texts that hold every word of a query, the best first; the score is -1 / rank.

    The last word may be the beginning of one. What is written as "several words" must stand like that. A word in a
    title counts ten times as much as one in the body, in a summary four times. Texts with the whole words come first;
    where there are `limit` of them, none is looked for in which the last word is only begun. Where thousands of texts
    fit, such as those with a word that begins with two given letters, they are not all compared: titles come before the
    rest, and of too many of a kind the oldest.
    """
    whole, widest = match_of(query, spelt=True, begun=False), match_of(query, spelt=True)
    if not widest:
        return []
    found: dict[int, float] = {}
    for match in dict.fromkeys((whole, widest)):
        ids = _first(db, match, _COMPARED + 1)
        few = len(ids) <= _COMPARED
        for key in _best(db, match, limit) if few else [*_first(db, f"title : ({match})", limit), *ids]:
            found.setdefault(key, -1.0 / (1 + len(found)))
        if len(found) >= limit:
            break
    return list(found.items())[:limit]


def _first(db: sqlite3.Connection, match: str, n: int) -> list[int]:
    """Ids of at most n texts that fit, the oldest."""
    return [int(key) for (key,) in db.execute(f"SELECT rowid FROM {_FTS} WHERE {_FTS} MATCH ? LIMIT ?", (match, n))]


def _best(db: sqlite3.Connection, match: str, limit: int) -> list[int]:
    sql = f"SELECT rowid FROM {_FTS} WHERE {_FTS} MATCH ? ORDER BY bm25({_FTS}, 10.0, 4.0, 1.0) LIMIT ?"
    return [int(key) for (key,) in db.execute(sql, (match, limit))]


def match_of(query: str, *, spelt: bool = False, begun: bool = True) -> str:
    """A query of a person in FTS5's language: each word or phrase in quotes, so that none of them is an operator.

    Args:
        query: as it was typed.
        spelt: allow other `spellings`.
        begun: the last word may be the beginning of one, unless it is quoted.
    """
    parts = [a or b for a, b in re.findall(r'"([^"]+)"|([^\s"]+)', query)]
    words = [part.replace("\0", "") for part in parts if any(c.isalnum() for c in part)]
    ends = [""] * len(words)
    if words and begun and not query.rstrip().endswith('"'):
        ends[-1] = " *"
    choices = [
        [f'"{w}"{end}' for w in (spellings(word) if spelt else [word])] for word, end in zip(words, ends, strict=True)
    ]
    quoted = [some[0] if len(some) == 1 else f"({' OR '.join(some)})" for some in choices]
    return (" AND " if spelt else " ").join(quoted)


def spellings(part: str) -> list[str]:
    """A word with and without the strokes and ligatures that FTS5 keeps, the plain one first.

    FTS5 folds what Unicode takes for a letter and a mark (ó, ü, č); ł, ø, đ, ß, æ, œ, þ, ı are letters of their own
    there. A text is found by either: lodz finds Łódź, and Łódź finds Lodz.
    """
    plain = part.casefold()
    for letter, base in _LETTERS:
        plain = plain.replace(letter, base)
    found = [plain]
    for letter, base in _LETTERS:
        for _ in range(_POSITIONS):  # each place in turn, in words that have not too many of them
            more = [w[:i] + letter + w[i + len(base) :] for w in found for i in _places(w, base)]
            new = [w for w in dict.fromkeys(more) if w not in found]
            if not new or len(found) + len(new) > _SPELLINGS:
                break
            found += new
        everywhere = [w.replace(base, letter) for w in found]  # and all of them at once
        found += [w for w in dict.fromkeys(everywhere) if w not in found][: _SPELLINGS - len(found)]
    own = part.casefold()  # casefold makes ss of ß; as it was written it is among them in any case
    return list(dict.fromkeys([*found, own, part]))


def _places(word: str, base: str) -> list[int]:
    return [i for i in range(len(word)) if word.startswith(base, i)]
