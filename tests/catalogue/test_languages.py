from __future__ import annotations

import pytest

from delf_edge.catalogue.languages import check_language, choose_language, parse_accept_language
from delf_edge.errors import OptionError


@pytest.mark.parametrize(
    ("tag", "stored"),
    [("en", "en"), ("PT-br", "pt-BR"), ("zh-hant-tw", "zh-Hant-TW"), ("es-419", "es-419"), ("sr-LATN", "sr-Latn")],
)
def test_tags_are_stored_in_one_form(tag: str, stored: str) -> None:
    assert check_language(tag) == stored


@pytest.mark.parametrize("tag", ["", "english", "xx", "en_US", "e", "en-", "-en", "en-US-", "../en", "en US", "a" * 80])
def test_what_is_no_language_is_refused(tag: str) -> None:
    with pytest.raises(OptionError, match="language"):
        check_language(tag)


def test_an_underscore_is_explained() -> None:
    with pytest.raises(OptionError, match="did you mean 'en-US'"):
        check_language("en_US")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (["de-AT"], "de"),
        (["pt"], "pt-BR"),
        (["ja", "de"], "de"),
        (["ja"], "en"),
        ([], "en"),
        (["PT-br"], "pt-BR"),
    ],
)
def test_the_best_language_is_chosen(wanted: list[str], chosen: str) -> None:
    assert choose_language(["pt-BR", "en", "de"], wanted) == chosen


def test_without_english_the_first_of_the_alphabet_is_chosen() -> None:
    assert choose_language(["pl", "fr"], ["ja"]) == "fr"
    assert choose_language([], ["ja"]) is None


def test_accept_language_is_read_by_weight() -> None:
    assert parse_accept_language("pl;q=0.5, de-AT, en;q=0.8, *;q=0.1") == ["de-AT", "en", "pl"]
    assert parse_accept_language("de;q=0, \x00, ;;, en-US ; q=0.3") == ["en-US"]
    assert len(parse_accept_language(",".join(["en"] * 500))) == 20
