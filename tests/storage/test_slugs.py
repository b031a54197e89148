from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delf_edge.storage.slugs import MAX_SLUG, free_slug, is_slug, slugify


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Eiffel Tower", "eiffel-tower"),
        ("Château de Chambord", "chateau-de-chambord"),
        ("Victoria Memorial, Kolkata", "victoria-memorial-kolkata"),
        ("Łódź, Straße 5", "lodz-strasse-5"),
        ("St. Mary's", "st-marys"),
        ("  --  A  --  ", "a"),
    ],
)
def test_names_become_slugs(name: str, slug: str) -> None:
    assert slugify(name) == slug


def test_a_name_in_another_script_gets_a_slug_of_its_own() -> None:
    assert slugify("故宫") != slugify("長城")
    assert slugify("故宫").startswith("place-")
    assert slugify("東京 1").startswith("place-")  # "1" alone would name nothing


@given(st.text(max_size=200))
def test_every_name_has_a_slug(name: str) -> None:
    assert is_slug(slugify(name))
    assert slugify(name) == slugify(name)


def test_a_taken_slug_gets_a_number() -> None:
    assert free_slug("cafe", {"cafe", "cafe-2"}) == "cafe-3"
    long = "x" * MAX_SLUG
    assert free_slug(long, {long}) == "x" * (MAX_SLUG - 2) + "-2"


@pytest.mark.parametrize("text", ["", "A", "a b", "a--b", "-a", "a-", "é", "a/b", "..", "a" * 81])
def test_what_is_no_slug(text: str) -> None:
    assert not is_slug(text)
