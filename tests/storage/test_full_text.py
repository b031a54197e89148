from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from delf_edge.errors import StoreError
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.full_text import match_of, spellings
from delf_edge.storage.rows import delete_rows, put_row
from delf_edge.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "places.db", bundle_id="3f2a", layout=CodeLayout(4, 8, 1000))
    with store.edit() as edit:
        for number, (name, title, body) in enumerate(
            [
                ("Chambord", "Château de Chambord", "Ein Schloss an der Loire"),
                ("Wawel", "Zamek Królewski", "Zamek w Krakowie"),
                ("Loire", "The Loire", "A river; a château stands at each bend"),
            ],
            1,
        ):
            row = (number, edit.landmark_id(name), "en", title, None, body, None, None, edit.revision)
            put_row(edit.db, "landmark_texts", row)
    yield store
    store.close()


def found(store: Store, query: str) -> list[int]:
    return [key for key, _ in store.catalogue.search(query, 10)]


def test_words_are_found_without_their_diacritics(store: Store) -> None:
    assert found(store, "chateau") == [1, 3]  # the title counts more than the body
    assert found(store, "CHÂTEAU loire") == [1, 3]
    assert found(store, "krolewski") == [2]


def test_the_last_word_may_be_unfinished(store: Store) -> None:
    assert found(store, "zam") == [2]
    assert found(store, '"zam"') == []
    assert found(store, '"zamek w"') == [2]


@pytest.mark.parametrize("query", ["", '"', "*", "AND OR", "a NEAR(b", "title:x", "-x", "\0", "'; DROP TABLE x", "((("])
def test_no_query_is_an_operator_or_an_error(store: Store, query: str) -> None:
    assert found(store, query) == []


def test_what_changes_and_goes_is_no_longer_found(store: Store) -> None:
    with store.edit() as edit:
        put_row(edit.db, "landmark_texts", (1, 1, "en", "Castle", None, None, None, None, edit.revision))
        delete_rows(edit.db, "landmark_texts", [3, 99])
    assert found(store, "chateau") == []
    assert found(store, "castle") == [1]
    assert store.verify() == []


def test_other_words_than_the_texts_are_a_problem_and_can_be_made_anew(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.path) as db:
        db.execute("INSERT INTO landmark_texts_fts (rowid, title) VALUES (1, 'forged')")
    db.close()
    with Store.open(store.path) as again:
        assert [problem.table for problem in again.verify()] == ["landmark_texts_fts"]
        again.remove_damaged()
        assert again.verify() == []


@pytest.mark.parametrize("table", ["data", "idx", "docsize", "config"])
def test_damage_to_the_tables_of_the_search_is_noticed(store: Store, table: str) -> None:
    column = {"data": "block", "idx": "pgno", "docsize": "sz", "config": "v"}[table]
    value = "999" if table == "idx" else "x'0505'"
    where = " WHERE id > 1000" if table == "data" else ""
    store.close()
    with sqlite3.connect(store.path) as db:
        db.execute(f"UPDATE landmark_texts_fts_{table} SET {column} = {value}{where}")
    db.close()
    with Store.open(store.path, mode="ro") as again:
        assert [problem.table for problem in again.verify()] == ["landmark_texts_fts"]
        with suppress(StoreError):  # an answer or an error of ours
            found(again, "chateau")
    with Store.open(store.path) as again:
        again.remove_damaged()
        assert again.verify() == []
        assert found(again, "chateau") == [1, 3]


def test_a_damaged_text_is_left_out_and_named(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE landmark_texts SET body = 'forged' WHERE id = 1")
    db.close()
    with Store.open(store.path) as again:
        assert [row[0] for row in again.rows("landmark_texts")] == [2, 3]
        assert ("landmark_texts", "1") in [(p.table, p.name) for p in again.verify()]
        again.remove_damaged()
        assert again.verify() == []
        assert found(again, "chambord") == []


def test_queries_become_quoted_words() -> None:
    assert match_of('eiffel "iron tower" pa') == '"eiffel" "iron tower" "pa" *'
    assert match_of('a "b c"') == '"a" "b c"'
    assert match_of("łan", spelt=True) == '("lan" * OR "łan" *)'


@pytest.fixture
def polish(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "polish.db", bundle_id="3f2a", layout=CodeLayout(4, 8, 1000))
    titles = [
        "Łódź Fabryczna",
        "Lodz, the city",
        "Wrocław",
        "Straße",
        "Strasse",
        "Møns Klint",
        "Đakovo",
        "Þingvellir",
        "Ærø",
    ]
    with store.edit() as edit:
        for number, title in enumerate(titles, 1):
            row = (number, edit.landmark_id(title), "en", title, None, None, None, None, edit.revision)
            put_row(edit.db, "landmark_texts", row)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("lodz", [1, 2]),
        ("Łódź", [1, 2]),
        ("łodz fab", [1]),
        ('"lodz fabryczna"', [1]),
        ("wroclaw", [3]),
        ("WROCŁ", [3]),
        ("strasse", [4, 5]),
        ("Straße", [4, 5]),
        ("stras", [5]),
        ("mons", [6]),
        ("dakovo", [7]),
        ("thingvellir", [8]),
        ("aero", [9]),
        ("ærø", [9]),
    ],
)
def test_letters_with_strokes_are_found_by_plain_ones_and_the_other_way(
    polish: Store, query: str, expected: list[int]
) -> None:
    assert sorted(found(polish, query)) == expected


def test_no_word_has_too_many_spellings() -> None:
    for word in ("o" * 200, "colorado", "ß" * 60, "lodz " * 40):
        assert len(spellings(word)) <= 18
        assert word in spellings(word)


def test_among_thousands_whole_words_and_titles_come_first(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "many.db", bundle_id="3f2a", layout=CodeLayout(4, 8, 1000))
    with store.edit() as edit:
        for number in range(1, 1401):
            title, body = f"Place {number}", f"karton{number}"
            if number == 1350:
                title = "The Kar"  # the whole word, in a title
            if number == 1390:
                body = "a kar in the text"
            if number == 1300:
                title = "Kartause"
            row = (number, edit.landmark_id(f"p{number}"), "en", title, None, body, None, None, edit.revision)
            put_row(edit.db, "landmark_texts", row)
    assert found(store, "kar")[:4] == [1350, 1390, 1300, 1]
    assert len(found(store, "kar")) == 10
    assert found(store, "place kar")[:2] == [1390, 1]
    assert found(store, '"place"') == list(range(1, 11))
    scores = [score for _, score in store.catalogue.search("kar", 10)]
    store.close()
    assert scores == sorted(scores)
    assert max(scores) < 0
