"""The pages' texts in every language, what a branding file says, and who may ask and sign in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from delf_edge import Bundle, OptionError, Recognizer
from delf_edge.web.access import SignIns
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.branding import Branding, contrast, known_languages, read_branding
from delf_edge.web.markdown import safe_html
from delf_edge.web.security import Policy
from delf_edge.web.server import read_pin
from testing.paths import ROOT, TINY_BUNDLE

STATIC = ROOT / "delf_edge" / "web" / "static"
TOKEN, PIN = "0123456789abcdef", "246810"
AUTH = {"authorization": f"Bearer {TOKEN}"}
LANGUAGES = {"ar", "de", "en", "es", "fr", "it", "ja", "pl"}


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    path = tmp_path_factory.mktemp("pages") / "places.db"
    with Recognizer.open(path, bundle=Bundle.load(TINY_BUNDLE), preset="fast") as opened:
        yield opened


def client_of(recognizer: Recognizer, policy: Policy, peer: str = "127.0.0.1", **options: Any) -> TestClient:
    app = create_app(recognizer, ServiceOptions(policy, **options))
    return TestClient(app, base_url="http://127.0.0.1:8000", client=(peer, 50000))


# ---------------------------------------------------------------- languages


def test_every_language_has_every_text() -> None:
    texts = known_languages()
    assert set(texts) >= LANGUAGES
    english = texts["en"]
    for language, own in texts.items():
        assert set(own) == set(english), language
        assert all(text.strip() for text in own.values()), language
        assert own["direction"] == ("rtl" if language in ("ar", "fa", "he", "ur") else "ltr")
        for key, text in own.items():
            assert set(re.findall(r"\\{\w+}", text)) == set(re.findall(r"\\{\w+}", english[key])), (language, key)
    names = [own["name"] for own in texts.values()]
    assert len(set(names)) == len(names)
    for key in set(english) - {"name", "direction", "keep_no"}:  # nothing was left in English by mistake
        assert sum(own[key] == english[key] for own in texts.values()) == 1, key


def test_the_page_uses_every_text_and_no_other() -> None:
    page = (STATIC / "index.html").read_text("utf-8")
    scripts = "".join(path.read_text("utf-8") for path in [STATIC / "app.js", *(STATIC / "visitor").glob("*.js")])
    used = set(re.findall(r'data-(?:text|label)="(\w+)"', page))
    english = known_languages()["en"]
    assert used <= set(english)
    for key in set(english) - used - {"name", "direction"}:
        reason = key.removesuffix("_hint")
        assert f'"{key}"' in scripts or f'"{reason}"' in scripts, key
    for key in re.findall(r'\bt\("(\w+)"', scripts):
        assert key in english


# ---------------------------------------------------------------- branding


def test_a_house_says_how_its_kiosk_looks(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", "utf-8")
    (tmp_path / "house.woff2").write_bytes(b"wOF2")
    file = tmp_path / "house.toml"
    file.write_text(
        """
        [page]
        title = "Museum of Places"
        logo = "logo.svg"
        language = "de"
        languages = ["de", "ar"]
        idle_seconds = 45
        [texts.de]
        invite = "Was ist das?"
        [colours]
        accent = "#123456"
        [fonts]
        family = "House Sans"
        files = ["house.woff2"]
        [sizes]
        text = 1.1
        [camera]
        label = "Logitech"
        rotation = 90
        """,
        "utf-8",
    )
    branding = read_branding(file)
    with client_of(recognizer, Policy(TOKEN), "192.0.2.1", branding=branding, kiosk=True) as client:
        said = client.get("/kiosk.json").json()  # no token: there is no secret in it
        assert (said["title"], said["language"], said["languages"]) == ("Museum of Places", "de", ["de", "ar"])
        assert (said["kiosk"], said["idle_seconds"], said["texts"]) == (True, 45, {"de": {"invite": "Was ist das?"}})
        assert said["camera"] == {"label": "Logitech", "mirror": False, "rotation": 90}
        assert client.get(f"/{said['logo']}").headers["content-type"] == "image/svg+xml"
        css = client.get("/brand/brand.css")
        assert css.headers["content-type"].startswith("text/css")
        assert "--accent: #123456;" in css.text
        assert "--text-size: 1.1" in css.text
        assert client.get("/brand/font0").content == b"wOF2"
        for name in ("house.toml", "..%2Fhouse.toml", "font1"):
            assert client.get(f"/brand/{name}").status_code == 404
    with client_of(recognizer, Policy(TOKEN)) as client:
        plain = client.get("/kiosk.json").json()
        assert set(plain["languages"]) >= LANGUAGES
        assert plain["build"] != said["build"]
        assert client.get("/brand/brand.css").text == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[page]\nname = 'x'", "page.name"),
        ("[pages]\ntitle = 'x'", "pages"),
        ("[page]\ntitle = 3", "page.title is 3"),
        ("[page]\nlogo = 'none.svg'", "page.logo"),
        ("[page]\nlogo = '/etc/passwd'", "page.logo"),
        ("[page]\nlanguages = ['xx']", "'xx'"),
        ("[page]\nlanguages = ['de']\nlanguage = 'en'", "page.language"),
        ("[page]\nidle_seconds = 1", "from 10 to 3600"),
        ("[texts.de]\nnothing = 'x'", "texts.de.nothing"),
        ("[colours]\naccent = 'red'", "#rrggbb"),
        ("[colours]\nink = '#dddddd'", "contrast"),
        ("[colours.dark]\nsoft = '#222222'", "contrast"),
        ("[fonts]\nfamily = 'x; } body {'", "fonts.family"),
        ("[fonts]\nfamily = 'x'\nfiles = ['x.exe']", "fonts.files"),
        ("[sizes]\ntext = 9", "sizes.text"),
        ("[camera]\nrotation = 45", "camera.rotation"),
        ("[camera]\nturn = 90", "camera.turn"),
        ("not toml", "cannot be read"),
    ],
)
def test_a_wrong_branding_file_is_refused_by_its_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "house.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(OptionError, match=re.escape(words)):
        read_branding(file)


def test_the_pages_own_colours_are_read_easily() -> None:
    css = (STATIC / "app.css").read_text("utf-8")
    light, dark = re.findall(r"(--paper: .*?;\s*)\}", css, re.S)[:2]
    for rules, least in ((light, 7.0), (dark, 7.0)):  # AAA
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rules))
        for text in ("ink", "soft", "accent", "warm"):
            for ground in ("paper", "panel"):
                assert contrast(colours[text], colours[ground]) >= least, (text, ground)
        assert contrast(colours["on-accent"], colours["accent"]) >= least
        for ground in ("paper", "panel"):  # borders of what can be touched
            assert contrast(colours["line"], colours[ground]) >= 3.0
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


# ---------------------------------------------------------------- who may ask, who may sign in


def test_staff_sign_in_with_the_pin_and_out_again(recognizer: Recognizer) -> None:
    with client_of(recognizer, Policy(TOKEN, sign_ins=SignIns(PIN))) as client:
        assert client.get("/v1/staff/session").json() == {"staff": False, "pin": True}
        assert client.get("/v1/staff/statistics").status_code == 401  # on this machine, too
        assert client.post("/v1/staff/session", json={"secret": "000000"}).status_code == 401
        signed = client.post("/v1/staff/session", json={"secret": PIN})
        assert signed.json() == {"staff": True}
        cookie = signed.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "samesite=strict", "max-age=600"))
        assert client.get("/v1/staff/statistics").status_code == 200
        assert client.delete("/v1/images", params={"landmark": "nowhere"}).status_code == 404
        foreign = client.delete("/v1/images", params={"landmark": "x"}, headers={"origin": "http://evil.example"})
        assert foreign.status_code == 403
        client.delete("/v1/staff/session")
        assert client.get("/v1/staff/statistics").status_code == 401
        assert client.get("/v1/staff/statistics", headers=AUTH).status_code == 200
        bodies: list[Any] = [{}, {"secret": 1}, []]
        for body in bodies:
            assert client.post("/v1/staff/session", json=body).status_code == 400


def test_wrong_pins_make_everybody_wait_and_the_token_passes() -> None:
    now = 0.0
    sign_ins = SignIns(PIN, clock=lambda: now)

    def status(secret: str) -> int:
        try:
            sign_ins.sign_in(secret, TOKEN)
        except Exception as e:
            return int(e.status_code)  # type: ignore[attr-defined]
        return 200

    assert [status("1") for _ in range(5)] == [401] * 5
    assert status(PIN) == 429
    now = 31.0
    assert status("2") == 401
    assert status(PIN) == 429
    now = 31.0 + 59
    assert status(PIN) == 429
    now = 31.0 + 61
    assert status(PIN) == 200
    tries = 0
    for now in range(1000, 1000 + 86_400):  # noqa: B007 (the clock reads it)
        tries += status("3") == 401
    assert tries < 120  # a day; a million PINs take more than twenty years
    assert status(TOKEN) == 200
    assert SignIns(None).pin is None
    with pytest.raises(Exception, match="neither"):
        SignIns(None).sign_in("", TOKEN)


def test_a_session_of_staff_ends_ten_minutes_after_its_last_request(recognizer: Recognizer) -> None:
    now = 0.0
    with client_of(recognizer, Policy(TOKEN, sign_ins=SignIns(PIN, clock=lambda: now))) as client:
        client.post("/v1/staff/session", json={"secret": PIN})
        now = 590.0
        assert client.get("/v1/staff/lint").status_code == 200
        now = 1180.0
        assert client.get("/v1/staff/lint").status_code == 200
        now = 1781.0
        assert client.get("/v1/staff/lint").status_code == 401


def test_a_screen_with_a_pass_may_read_from_another_machine(recognizer: Recognizer) -> None:
    policy = Policy(TOKEN, frozenset({"127.0.0.1"}), loopback_only=False, sign_ins=SignIns(PIN))
    with client_of(recognizer, policy, "192.0.2.1") as client:
        assert client.get("/v1/showcase").status_code == 401
        assert client.post("/v1/pass").status_code == 401
        assert client.post("/v1/pass", headers=AUTH).json() == {"reading": True}
        assert client.get("/v1/showcase").json() == {"known": 0, "places": []}
        for path in ("/v1/staff/questions", "/metrics"):
            assert client.get(path).status_code == 401
        assert client.delete("/v1/images", params={"landmark": "x"}).status_code == 401
        cookie = client.cookies["delf_edge_pass"]
    again = client_of(recognizer, Policy(TOKEN, loopback_only=False), "192.0.2.1")
    again.cookies.set("delf_edge_pass", cookie)
    assert again.get("/v1/showcase").status_code == 200  # a restart of the service changes nothing
    other = client_of(recognizer, Policy("another-token-0123", loopback_only=False), "192.0.2.1")
    other.cookies.set("delf_edge_pass", cookie)
    assert other.get("/v1/showcase").status_code == 401


def test_open_reading_opens_nothing_but_reading(recognizer: Recognizer) -> None:
    policy = Policy(TOKEN, loopback_only=False, open_reading=True)
    with client_of(recognizer, policy, "192.0.2.1") as client:
        assert client.get("/v1/landmarks").status_code == 200
        assert client.get("/v1/status").status_code == 200
        for method, path in (
            ("POST", "/v1/images"),
            ("PATCH", "/v1/landmarks/x"),
            ("GET", "/v1/staff/lint"),
            ("GET", "/metrics"),
        ):
            assert client.request(method, path).status_code == 401


def test_the_pin_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DELF_EDGE_PIN", raising=False)
    assert read_pin(None) is None
    monkeypatch.setenv("DELF_EDGE_PIN", PIN)
    assert read_pin(None) == PIN
    file = tmp_path / "pin"
    for text, words in (("123", "at least 6"), ("12345x", "at least 6"), ("", "at least 6")):
        file.write_text(text, "utf-8")
        with pytest.raises(OptionError, match=words):
            read_pin(file)
    file.write_text("13579135\n", "utf-8")
    assert read_pin(file) == "13579135"
    with pytest.raises(OptionError, match="cannot be read"):
        read_pin(tmp_path / "none")


# ---------------------------------------------------------------- texts


def test_markdown_of_a_text_becomes_harmless_html() -> None:
    html = safe_html(
        "# Head\n\nSome *text*\n\n* one\n* two\n\n"
        "<script>alert(1)</script> [a word](https://x.example) ![y](z) <p onclick=x>"
    )
    assert "<h2>Head</h2>" in html
    assert "<em>text</em>" in html
    assert "<li>one</li>" in html
    assert "a word" in html
    assert set(re.findall(r"<(\w+)", html)) <= {"h2", "p", "em", "ul", "li"}
    assert "=" not in html.replace("onclick=x", "")  # no attributes


def test_default_branding_is_plain() -> None:
    assert Branding().css == ""
    assert Branding().language == "en"


def test_a_page_that_is_closed_while_it_sends_a_frame_is_no_error(
    recognizer: Recognizer, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    with client_of(recognizer, Policy(TOKEN)) as client:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/identify",
            "query_string": b"session=kiosk-001",
            "headers": [(b"host", b"127.0.0.1:8000"), (b"content-length", b"1000")],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "scheme": "http",
        }
        asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert caplog.records == []
