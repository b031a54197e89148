"""The device's side of a channel: verify, fetch what changed, test, switch, and otherwise stay as it is.

::

    packs/NAME/...       the versions of each pack (`installed.py`)
    packs/.trust/        root.json that was given, and what The Update Framework remembers
    packs/.incoming/     what is being fetched; emptied at the next update

Whatever happens on the way, a power cut included, every pack is at its old version or at the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
from tuf.ngclient import TargetFile, Updater

from delf_edge.bundle.bundle import Bundle
from delf_edge.errors import DelfEdgeError, PackError, StoreError, UpdateError, UpdateRefusedError
from delf_edge.files import parse_json, remove_database, write_atomically
from delf_edge.packs.installed import Installed, go_back, in_use, names, open_installed, switch, tidy
from delf_edge.packs.manifest import PackManifest, check_name, manifest_path
from delf_edge.updates.delta import apply_delta
from delf_edge.updates.fetcher import Fetcher, as_url
from delf_edge.updates.publisher import CATALOGUE, CHANNEL_FORMAT
from delf_edge.updates.self_test import prove_pack

Status = Literal["installed", "updated", "unchanged", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class PackUpdate:
    """What became of one pack.

    Attributes:
        name: the pack.
        status: "installed" for the first time, "updated", "unchanged", "refused" or "failed"; after the last two what
            was there stays in use.
        version: the version in use now, None where there is none.
        how: "delta" or "whole", of what was fetched.
        reason: why it was refused or failed.
    """

    name: str
    status: Status
    version: int | None
    how: Literal["delta", "whole"] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What an update did: each pack, and the bytes that were fetched in all, metadata included."""

    packs: tuple[PackUpdate, ...]
    bytes: int

    @property
    def sound(self) -> bool:
        """Whether nothing was refused or failed."""
        return all(pack.status not in ("refused", "failed") for pack in self.packs)


def update(
    source: str,
    folder: Path,
    bundle: Bundle,
    *,
    root: Path | None = None,
    wanted: Sequence[str] = (),
    fetcher: Fetcher | None = None,
) -> UpdateReport:
    """Bring the packs in a folder to the state of a channel.

    Args:
        source: the channel: a folder, or a URL.
        folder: where the device keeps its packs; made if need be.
        bundle: the device's bundle; packs of another one are refused.
        root: the channel's `1.root.json`, carried here by hand: whom to trust. Needed the first time.
        wanted: names of packs; none for those that are installed, or where none is, for all of the channel.
        fetcher: reads the channel's files.

    Raises:
        UpdateRefusedError: the channel as a whole is tampered with, older, expired, or signed by somebody else.
        UpdateError: it cannot be read. Nothing changed in either case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trust, incoming = folder / ".trust", folder / ".incoming"
    with _alone(folder):
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        try:
            fetcher = fetcher or Fetcher(incoming)
            fetcher.scratch = incoming
            anchor = _anchor(trust, root)
            session = _UpdateSession(source, folder, bundle, trust, incoming, fetcher, anchor)
            return session.run(wanted)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One update at a time; the lock goes with the process."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise UpdateError(f"{folder}: another update is running; wait until it is done") from e
        yield


def _anchor(trust: Path, given: Path | None) -> bytes:
    """The root that this device trusts: given once, and the same ever after."""
    anchor = trust / "anchor.json"
    trust.mkdir(exist_ok=True)
    for leftover in trust.glob("tmp*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    known = anchor.read_bytes() if anchor.exists() else None
    try:
        data = given.read_bytes() if given is not None else known
    except OSError as e:
        raise UpdateError(f"{given}: cannot be read ({e.strerror})") from e
    if data is None:
        raise UpdateError(
            f"{trust.parent}: whom to trust is not known yet; give the channel's 1.root.json with --root, once"
        )
    if known is not None and data != known:
        raise UpdateRefusedError(
            f"{given}: another root than the one this device was set up with; remove {trust} to trust it instead"
        )
    if known is None:
        write_atomically(anchor, data)
    return data


class _UpdateSession:
    """One update from a channel."""

    def __init__(
        self, source: str, folder: Path, bundle: Bundle, trust: Path, incoming: Path, fetcher: Fetcher, anchor: bytes
    ) -> None:
        self.source, self.folder, self.bundle, self.incoming, self.fetcher = source, folder, bundle, incoming, fetcher
        url = as_url(source)
        with self._translated(source):
            self.updater = Updater(
                str(trust),
                f"{url}/metadata/",
                str(incoming),
                f"{url}/targets/",
                fetcher=fetcher,
                bootstrap=anchor,
            )

    def run(self, wanted: Sequence[str]) -> UpdateReport:
        with self._translated(self.source):
            self.updater.refresh()
        catalogue = self._catalogue()
        have = names(self.folder)
        chosen = list(wanted) or have or sorted(catalogue)
        results = [self._one(name, catalogue.get(name)) for name in dict.fromkeys(chosen)]
        return UpdateReport(tuple(results), self.fetcher.n_bytes)

    def _catalogue(self) -> dict[str, Any]:
        path = self._fetch(CATALOGUE)
        facts = parse_json(path.read_bytes())
        if facts["format"] != CHANNEL_FORMAT:
            raise UpdateError(
                f"{self.source}: a channel of format {facts['format']}; this delf-edge reads {CHANNEL_FORMAT}, "
                "get a newer one"
            )
        packs: dict[str, Any] = facts["packs"]
        return packs

    def _one(self, name: str, entry: Any) -> PackUpdate:
        """Update one pack; whatever is wrong with it is its own affair."""
        check_name(name)
        home = self.folder / name
        if home.is_dir():
            tidy(self.folder, name)
        now = in_use(self.folder, name)
        version = None if now is None else now.manifest.version
        try:
            if entry is None:
                raise UpdateError(f"{name}: the channel has no pack of this name")
            manifest = PackManifest.from_json(entry["manifest"], f"{self.source}, {name}")
            if (
                now is not None
                and now.manifest.content_sha256 == manifest.content_sha256
                and version == manifest.version
            ):
                return PackUpdate(name, "unchanged", version)
            self._check(name, manifest, now)
            how = self._install(name, manifest, entry, now)
        except UpdateRefusedError as e:
            return PackUpdate(name, "refused", version, reason=str(e))
        except (DelfEdgeError, OSError) as e:
            return PackUpdate(name, "failed", version, reason=str(e))
        return PackUpdate(name, "installed" if now is None else "updated", manifest.version, how)

    def _check(self, name: str, manifest: PackManifest, now: Installed | None) -> None:
        if manifest.name != name:
            raise UpdateRefusedError(f"{name}: the channel lists a pack called {manifest.name} under this name")
        if now is not None and manifest.version <= now.manifest.version:
            raise UpdateRefusedError(
                f"{name}: version {manifest.version} is offered, version {now.manifest.version} is installed; an older "
                "one is never installed over a newer one"
            )
        if manifest.bundle_id != self.bundle.id:
            raise UpdateRefusedError(
                f"{name}: made with bundle {manifest.bundle_id}, this device has {self.bundle.id}; install it first"
            )

    def _install(
        self, name: str, manifest: PackManifest, entry: Any, now: Installed | None
    ) -> Literal["delta", "whole"]:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        path = home / f"{manifest.version}-{manifest.content_sha256[:8]}.pack"
        how: Literal["delta", "whole"] = "whole"
        try:
            if self._by_delta(path, manifest, entry, now):
                how = "delta"
            else:
                self._whole(path, manifest, entry["path"])
            try:
                prove_pack(path, self.bundle)
            except (PackError, StoreError) as e:
                raise UpdateRefusedError(f"{name}: version {manifest.version} {e}") from e
            switch(self.folder, name, path)
        except BaseException:
            if (current := in_use(self.folder, name)) is None or current.path != path:
                remove_database(path)
                manifest_path(path).unlink(missing_ok=True)
            raise
        self._prove(name, path)
        return how

    def _prove(self, name: str, path: Path) -> None:
        """What is in use now must open the way a device opens it; else the version before comes back."""
        try:
            with open_installed(self.folder, name, bundle_id=self.bundle.id) as store:
                if store.path == path:
                    return
        except (PackError, StoreError):
            pass
        go_back(self.folder, name)
        raise UpdateRefusedError(
            f"{name}: {path.name} could not be opened once it was in use; the version before is back"
        )

    def _by_delta(self, path: Path, manifest: PackManifest, entry: Any, now: Installed | None) -> bool:
        """Whether the version in use and a delta gave the new one."""
        for delta in entry["deltas"] if now is not None else ():
            if now is not None and delta["from"] == now.manifest.content_sha256:
                try:
                    apply_delta(now.path, self._fetch(delta["path"]), path, manifest, int(delta["unpacked"]))
                except (PackError, StoreError):
                    remove_database(path)  # the whole pack may still be had
                else:
                    return True
        return False

    def _whole(self, path: Path, manifest: PackManifest, target: str) -> None:
        fetched = self._fetch(target)
        with fetched.open("rb") as file:
            os.fsync(file.fileno())
        fetched.replace(path)
        manifest.write(manifest_path(path))

    def _fetch(self, name: str) -> Path:
        """A file of the channel, as it was signed."""
        with self._translated(f"{self.source}, {name}"):
            target: TargetFile | None = self.updater.get_targetinfo(name)
            if target is None:
                raise UpdateRefusedError(f"{self.source}: {name} is not signed")
            return Path(self.updater.download_target(target))

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """The Update Framework's errors as ours."""
        try:
            yield
        except ExpiredMetadataError as e:
            raise UpdateRefusedError(
                f"{what}: stale ({e}); its publisher must sign it again, or this clock is wrong"
            ) from e
        except RepositoryError as e:
            raise UpdateRefusedError(f"{what}: refused, {e or type(e).__name__}") from e
        except DownloadError as e:
            raise UpdateError(f"{what}: cannot be fetched: {e}") from e
