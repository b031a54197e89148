"""The visitor's page for phones: a folder of files that any web server can give out (`delf-edge webapp`).

The page itself is built from `web-sdk/` (`make phone`). Beside it go the model bundle and a pack, and `app.json`, which
names every file with its SHA-256: the page's service worker keeps files of one release together by it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.manifest import MANIFEST, bundle_id, load_manifest
from delf_edge.errors import BundleMismatchError, NotFoundError, OptionError
from delf_edge.files import dump_json, file_sha256, replacing_folder, require_apart, require_own_folder
from delf_edge.packs.create import cut_pack
from delf_edge.packs.manifest import check_pack, manifest_path, open_pack
from delf_edge.storage.store import Store
from delf_edge.web.security import is_loopback

BUILT = Path(__file__).resolve().parent / "visit"  # where `make phone` puts the page, and a wheel has it
RELEASE = "app.json"
FORMAT = 1
PACK = "places.pack"
BUNDLE = "bundle"
# In browsers the float16 network takes half as long again as this one (benchmarks/results/phone.json), which is smaller
# and ranks slightly less well (docs/figures.md).
VARIANT = "int8"
# Kept from the first visit on. WebAssembly, bundle and pack are kept when they are used: of several a phone uses one.
_PAGE = (".css", ".html", ".js", ".json", ".svg", ".webmanifest")


def page_folder(folder: Path | None = None) -> Path:
    """The folder of the built page.

    Raises:
        OptionError: it was not built.
    """
    folder = folder or BUILT
    missing = [name for name in ("index.html", "visit.js", "sw.js", "worker.js") if not (folder / name).is_file()]
    if missing:
        raise OptionError(
            f"{folder}: the page for phones is not here ({', '.join(missing)} missing); build it with `make phone` "
            "in a checkout (needs Node.js), or install a wheel that has it"
        )
    return folder


def write_webapp(
    source: Path | Store,
    out: Path,
    *,
    bundle: Path,
    title: str | None = None,
    variant: str | None = None,
    page: Path | None = None,
) -> dict[str, Any]:
    """Write the page with a bundle and a pack.

    Args:
        source: a pack with its manifest, which is taken as it is; or an open database, of which a pack is cut.
        out: the folder; absent, empty, or one that this wrote before, which is replaced unless somebody changed it.
        bundle: folder of the model bundle that the database was made with.
        title: what the page calls itself; None: its own words, in the visitor's language.
        variant: of the local network; default: `VARIANT` where the bundle has it, else the bundle's own.
        page: folder of the built page; default: that of the package.

    Returns:
        What `app.json` holds.

    Raises:
        OptionError: `out` holds something else, or the page was not built.
        BundleError: the bundle is damaged.
        PackError, StoreError: the pack or the database cannot be used.
        BundleMismatchError: it was made with another bundle.
    """
    page = page_folder(page)
    path = source if isinstance(source, Path) else source.path
    require_apart(out, [path, bundle, page])
    manifest, identity = Bundle.verify(bundle), bundle_id(load_manifest(bundle))
    if variant is not None and variant not in manifest.network.variants:
        raise OptionError(
            f"{bundle}: has no variant {variant!r}; it has {', '.join(sorted(manifest.network.variants))}"
        )
    variant = variant or (VARIANT if VARIANT in manifest.network.variants else None)
    with replacing_folder(out, lambda: require_own_folder(out, "the page", _own_files)) as folder:
        shutil.copytree(page, folder, dirs_exist_ok=True)
        (folder / BUNDLE).mkdir()
        for name in (MANIFEST, *manifest.files):
            shutil.copyfile(bundle / name, folder / BUNDLE / name)
        _put_pack(source, folder / PACK, identity)
        release = describe_release(folder, title, variant)
        (folder / RELEASE).write_bytes(dump_json(release))
    return release


def _put_pack(source: Path | Store, target: Path, bundle: str) -> None:
    if isinstance(source, Path):
        open_pack(source, bundle_id=bundle).close()
        shutil.copyfile(source, target)
        shutil.copyfile(manifest_path(source), manifest_path(target))
        check_pack(target)
    elif source.bundle_id != bundle:
        raise BundleMismatchError(
            f"{source.path}: made with bundle {source.bundle_id}, not {bundle}; name it: --bundle"
        )
    else:
        cut_pack(source, target, name="places", version=max(1, source.revision()))


def _own_files(folder: Path) -> set[str]:
    """Files that an earlier run wrote, and nobody has changed since; none where there was no such run."""
    try:
        read = json.loads((folder / RELEASE).read_bytes())
        if read["format"] != FORMAT:
            return set()
        return {RELEASE, *(n for n, facts in read["files"].items() if file_sha256(folder / n) == facts["sha256"])}
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return set()


def describe_release(folder: Path, title: str | None, variant: str | None = None) -> dict[str, Any]:
    """`app.json` of a folder: its files, and a version that changes with every byte of them."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != RELEASE:
            data = name.startswith((f"{BUNDLE}/", PACK))
            page = not data and path.suffix in _PAGE and not name.startswith("wasm/")
            files[name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size, "page": page}
    release = {
        "format": FORMAT,
        "title": title,
        "variant": variant,
        "bundle": f"{BUNDLE}/",
        "database": PACK,
        "manifest": f"{PACK}.json",
        "files": files,
    }
    return {**release, "version": hashlib.sha256(dump_json(release)).hexdigest()}


class VisitPage:
    """The page of a running service: made anew when the database has changed.

    Args:
        store: the open database.
        bundle: folder of its bundle.
        url: the address that visitors' phones open.
        title: what the page calls itself; None: its own words.
        page: folder of the built page; default: that of the package.

    Raises:
        OptionError: the page was not built.
    """

    def __init__(
        self, store: Store, bundle: Path, url: str, *, title: str | None = None, page: Path | None = None
    ) -> None:
        self.url = url
        self._store, self._bundle, self._title, self._page = store, bundle, title, page_folder(page)
        self._folder = tempfile.TemporaryDirectory(prefix="delf-edge-visit-")
        self._lock = threading.Lock()
        self._revision: int | None = None
        self._files: frozenset[str] = frozenset()

    def file(self, name: str) -> Path:
        """A file of the page; `app.json` looks first whether the database has changed. Not from the event loop.

        Raises:
            NotFoundError: there is none of this name.
        """
        with self._lock:
            if self._revision is None or (name == RELEASE and self._store.revision() != self._revision):
                self._make()
            if name != RELEASE and name not in self._files:
                raise NotFoundError(f"the page has no file {name[:80]!r}")
            return Path(self._folder.name) / str(self._revision) / name

    def _make(self) -> None:
        revision = self._store.revision()
        out = Path(self._folder.name) / str(revision)
        release = write_webapp(self._store, out, bundle=self._bundle, title=self._title, page=self._page)
        before, self._revision = self._revision, revision
        self._files = frozenset(release["files"])
        # Answers that have begun still read the files of the release before; older ones go.
        for old in Path(self._folder.name).iterdir():
            if old.name not in (str(before), str(revision)):
                shutil.rmtree(old, ignore_errors=True)

    @property
    def for_phones(self) -> bool:
        """Whether another machine can open the address: a QR code of "localhost" leads a phone to itself."""
        return not is_loopback(urlsplit(self.url).hostname or "")

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()
