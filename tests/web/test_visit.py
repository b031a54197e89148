"""The page for phones: what `webapp` writes and refuses, what the service gives out, and the languages of the page."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from delf_edge import Bundle, BundleMismatchError, OptionError, PackIntegrityError, Recognizer
from delf_edge.cli.main import main
from delf_edge.packs.create import cut_pack
from delf_edge.packs.manifest import check_pack
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.qr import qr_svg, qr_text
from delf_edge.web.security import VISIT_HEADERS, Policy
from delf_edge.web.visit import VisitPage, page_folder, write_webapp
from testing.paths import ROOT, TINY_BUNDLE

SOURCE = ROOT / "web-sdk" / "visit"
URL = "https://guide.example/visit/"


def photo(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".png", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Stands for the built page: the same names, other content."""
    folder = tmp_path / "page"
    (folder / "wasm").mkdir(parents=True)
    (folder / "languages").mkdir()
    for name in ("index.html", "visit.js", "sw.js", "worker.js", "wasm/a.wasm", "wasm/a.js", "languages/en.json"):
        (folder / name).write_text(f"this is {name}", encoding="utf-8")
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer.open(tmp_path / "places.db", bundle=TINY_BUNDLE, preset="fast") as opened:
        opened.add(photo(0), landmark="Town hall", name="a")
        yield opened


def test_a_folder_with_everything_and_its_hashes(places: Recognizer, page: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    release = write_webapp(places.store, out, bundle=TINY_BUNDLE, title="Guide", page=page)
    assert json.loads((out / "app.json").read_bytes()) == release
    here = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert here == {"app.json", *release["files"]}
    for name, facts in release["files"].items():
        data = (out / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["bytes"], facts["sha256"])
    pages = {name for name, facts in release["files"].items() if facts["page"]}
    assert pages == {"index.html", "visit.js", "sw.js", "worker.js", "languages/en.json"}
    Bundle.verify(out / "bundle")
    assert check_pack(out / release["database"]).landmarks == 1
    assert release["manifest"] == "places.pack.json"
    again = write_webapp(places.store, out, bundle=TINY_BUNDLE, title="Guide", page=page)
    assert again == release  # the same content, the same version; the folder of an earlier run is replaced
    places.add(photo(1), landmark="Church", name="b")
    assert (
        write_webapp(places.store, out, bundle=TINY_BUNDLE, title="Guide", page=page)["version"] != release["version"]
    )


def test_a_pack_is_taken_as_it_is(places: Recognizer, page: Path, tmp_path: Path) -> None:
    pack = tmp_path / "town.pack"
    cut_pack(places.store, pack, name="town", version=7)
    release = write_webapp(pack, tmp_path / "out", bundle=TINY_BUNDLE, page=page)
    assert (tmp_path / "out" / release["database"]).read_bytes() == pack.read_bytes()
    assert check_pack(tmp_path / "out" / "places.pack").version == 7
    damaged = bytearray(pack.read_bytes())
    damaged[-1] ^= 1
    pack.write_bytes(damaged)
    with pytest.raises(PackIntegrityError):
        write_webapp(pack, tmp_path / "other", bundle=TINY_BUNDLE, page=page)
    assert not (tmp_path / "other").exists()


def test_nothing_of_anybody_is_lost(places: Recognizer, page: Path, tmp_path: Path) -> None:
    def write(out: Path) -> None:
        write_webapp(places.store, out, bundle=TINY_BUNDLE, page=page)

    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "mine.jpg").write_bytes(b"mine")
    for out, why in ((photos, "mine.jpg"), (tmp_path, "contains"), (page, "is"), (photos / "mine.jpg", "is a file")):
        with pytest.raises(OptionError, match=why):
            write(out)
    write(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"notes\.txt"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    (tmp_path / "out" / "notes.txt").unlink()
    (tmp_path / "out" / "link").symlink_to(photos)
    with pytest.raises(OptionError, match="link"):
        write(tmp_path / "out")
    assert (photos / "mine.jpg").read_bytes() == b"mine"
    (tmp_path / "out" / "link").unlink()
    (tmp_path / "out" / "index.html").write_text("mine")  # what somebody made of the page is theirs
    with pytest.raises(OptionError, match=r"index\.html"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "index.html").read_text() == "mine"


def test_a_folder_that_cannot_be_replaced_stays(
    places: Recognizer, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_webapp(places.store, tmp_path / "out", bundle=TINY_BUNDLE, page=page)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == (tmp_path / "out").resolve() and self.name != "old":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        write_webapp(places.store, tmp_path / "out", bundle=TINY_BUNDLE, title="New", page=page)
    assert json.loads((tmp_path / "out" / "app.json").read_bytes()) == release
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".out")] == []


def test_the_fast_network_is_the_default(places: Recognizer, page: Path, tmp_path: Path) -> None:
    default = ROOT / "assets" / "default"
    with Recognizer.open(tmp_path / "default.db", bundle=default) as recognizer:
        recognizer.add(photo(0), landmark="Town hall", name="a")
        for given, used in ((None, "int8"), ("float16", "float16")):
            out = tmp_path / f"out-{given}"
            assert write_webapp(recognizer.store, out, bundle=default, variant=given, page=page)["variant"] == used
        with pytest.raises(OptionError, match="float16"):
            write_webapp(recognizer.store, tmp_path / "x", bundle=default, variant="int4", page=page)


def test_another_bundle_is_refused(places: Recognizer, page: Path, tmp_path: Path) -> None:
    pack = tmp_path / "town.pack"
    cut_pack(places.store, pack, name="town", version=1)
    with pytest.raises(BundleMismatchError):
        write_webapp(pack, tmp_path / "out", bundle=ROOT / "assets" / "default", page=page)
    with pytest.raises(BundleMismatchError):
        write_webapp(places.store, tmp_path / "out", bundle=ROOT / "assets" / "default", page=page)
    assert not (tmp_path / "out").exists()


def test_a_page_that_was_not_built_says_how(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="make phone"):
        page_folder(tmp_path)


def test_the_service_gives_it_out(places: Recognizer, page: Path) -> None:
    with closing(VisitPage(places.store, TINY_BUNDLE, URL, page=page)) as visit:
        app = create_app(places, ServiceOptions(Policy("0123456789abcdef"), visit=visit))
        with TestClient(app, base_url="http://127.0.0.1:8000", client=("192.0.2.7", 5)) as client:
            assert client.get("/visit", follow_redirects=False).headers["location"] == "visit/"
            first = client.get("/visit/app.json").json()
            shown = client.get("/visit/")
            assert (shown.text, shown.headers["content-type"].split(";")[0]) == ("this is index.html", "text/html")
            policy = shown.headers["content-security-policy"]
            assert "connect-src 'self'" in policy
            assert "'wasm-unsafe-eval'" in policy
            assert shown.headers["cross-origin-embedder-policy"] == "require-corp"
            assert "wasm" not in client.get("/").headers["content-security-policy"]
            assert client.get("/visit/wasm/a.wasm").headers["content-type"] == "application/wasm"
            for name, facts in first["files"].items():
                assert hashlib.sha256(client.get(f"/visit/{name}").content).hexdigest() == facts["sha256"]
            for name in ("none.js", "../places.db", "%2e%2e/places.db", "bundle", "languages/"):
                assert client.get(f"/visit/{name}").status_code == 404
            assert client.get("/v1/landmarks").status_code == 401  # the rest needs the token as before
            places.add(photo(1), landmark="Church", name="b")
            second = client.get("/visit/app.json").json()
            assert second["version"] != first["version"]
            pack = client.get("/visit/places.pack").content
            assert hashlib.sha256(pack).hexdigest() == second["files"]["places.pack"]["sha256"]
            assert client.get("/visit/qr.svg").content == qr_svg(URL)
            assert client.get("/kiosk.json").json()["visit"]
    with closing(VisitPage(places.store, TINY_BUNDLE, "http://localhost:8000/visit/", page=page)) as visit:
        assert not visit.for_phones  # the kiosk shows no code that leads a phone to itself


def test_without_the_option_there_is_no_page(places: Recognizer) -> None:
    with TestClient(create_app(places, ServiceOptions(Policy("0123456789abcdef"))), base_url="http://localhost") as c:
        answer = c.get("/visit/")
        assert (answer.status_code, "--visit" in answer.json()["error"]) == (404, True)


def test_the_code_is_read_back() -> None:
    from_svg = qr_svg(URL).decode()
    assert from_svg.startswith("<svg")
    assert "http://www.w3.org/2000/svg" in from_svg
    rows = [line for line in qr_text(URL).splitlines() if line]
    assert len(rows) >= 15
    import segno

    bits = np.array([list(row) for row in segno.make(URL, micro=False, error="m").matrix], np.uint8)
    picture = np.kron(np.pad(1 - bits, 4, constant_values=1) * 255, np.ones((8, 8))).astype(np.uint8)
    assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == URL


def test_the_commands(
    places: Recognizer, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("delf_edge.web.visit.BUILT", page)

    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    assert run("webapp", places.store.path, tmp_path / "out", "--bundle", TINY_BUNDLE, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["version"] == json.loads((tmp_path / "out" / "app.json").read_bytes())["version"]
    assert run("webapp", tmp_path / "typo.db", tmp_path / "x", "--bundle", TINY_BUNDLE) == 2
    for more in ([], ["--host", "0.0.0.0"], ["--host", "::"]):  # all addresses have none that a phone can open
        assert run("serve", places.store.path, "--bundle", TINY_BUNDLE, "--qr", *more) == 2
        assert "--public-url" in capsys.readouterr().err
    assert run("serve", places.store.path, "--bundle", TINY_BUNDLE, "--statistics", places.store.path) == 2
    assert "write to another place" in capsys.readouterr().err
    monkeypatch.setattr("delf_edge.web.visit.BUILT", tmp_path / "none")
    assert run("serve", places.store.path, "--bundle", TINY_BUNDLE, "--visit") == 2
    assert "make phone" in capsys.readouterr().err


# ---------------------------------------------------------------- the page's own files


def test_the_policy_is_the_same_from_the_service_and_in_the_page() -> None:
    page = (SOURCE / "index.html").read_text(encoding="utf-8")
    (said,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    # A page cannot forbid by itself to be framed: only a server's header does.
    assert VISIT_HEADERS["content-security-policy"] == f"{said}; frame-ancestors 'none'"


def test_every_language_has_every_word() -> None:
    script = (SOURCE / "src" / "languages.ts").read_text(encoding="utf-8")
    tags = re.findall(r"^  (\w\w): '", script, re.MULTILINE)
    files = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in (SOURCE / "languages").iterdir()}
    assert sorted(files) == sorted(tags)
    assert len(files) >= 8
    english = files["en"]
    for tag, words in files.items():
        assert list(words) == list(english), tag
        for key, text in words.items():
            assert text.strip() == text != "", (tag, key)
            assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), (tag, key)
            if tag != "en" and len(english[key]) > 12:
                assert text != english[key], (tag, key)


def test_every_word_is_used_and_every_used_one_is_there() -> None:
    english = json.loads((SOURCE / "languages" / "en.json").read_text(encoding="utf-8"))
    page = (SOURCE / "index.html").read_text(encoding="utf-8")
    scripts = "\n".join(p.read_text(encoding="utf-8") for p in (SOURCE / "src").iterdir())
    used = set(re.findall(r'data-text="(\w+)"', page))
    assert used <= set(english)
    quoted = set(re.findall(r"'(\w+)'", scripts))
    assert {key for key in english if key not in used and key not in quoted} == set()
    for call in re.findall(r"say\(([^()]*)[,)]", scripts):
        for key in re.findall(r"'(\w+)'", call.split(", {")[0]):
            assert key in english, key


def test_the_page_has_no_inline_code_and_names_no_other_host() -> None:
    page = (SOURCE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page)
    for path in [*(SOURCE / "src").iterdir(), SOURCE / "index.html", SOURCE / "visit.css"]:
        text = path.read_text(encoding="utf-8")
        assert "innerHTML" not in text, path
        assert not re.search(r"(?:href|src|url\()=?[\"']?https?://", text), path
    for name in re.findall(
        r"(?<![.\w])(?:get|show)(?:<\w+>)?\('([a-z-]+)'",
        "\n".join(p.read_text(encoding="utf-8") for p in (SOURCE / "src").glob("*.ts")),
    ):
        assert f'id="{name}"' in page, name
