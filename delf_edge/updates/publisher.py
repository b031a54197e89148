"""The publisher's side: keys, and a folder that any web server or object store can serve.

::

    metadata/    root, timestamp, snapshot and targets of The Update Framework
    targets/     HASH.channel.json, NAME/HASH.VERSION.pack, NAME/HASH.FROM-TO.delta

Keys are Ed25519, one file a role. `root` signs which keys the other roles have and can be kept off line, on paper in a
safe; `targets` signs what is published; `snapshot` and `timestamp` sign that it is the present state.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from delf_edge.errors import OptionError, UpdateError
from delf_edge.files import dump_json, write_atomically
from delf_edge.packs.manifest import PackManifest, check_pack
from delf_edge.updates.delta import make_delta

CHANNEL_FORMAT = 1
CATALOGUE = "channel.json"
ROLES = ("root", "targets", "snapshot", "timestamp")
_DAYS = {"root": 3650, "targets": 3650}  # snapshot and timestamp: `PublishOptions.days`
_WORTH = 0.5  # a delta larger than this part of the pack is not worth publishing


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """How a channel is published.

    Attributes:
        days: after how many days devices refuse the present state as stale; sign again (publish nothing) before.
        keep: versions of a pack from which a delta leads to the newest one.
    """

    days: int = 90
    keep: int = 3

    def __post_init__(self) -> None:
        if self.days < 1 or self.keep < 0:
            raise OptionError(f"{self}: days must be at least 1, keep not negative")


class Channel:
    """A channel's folder, and the keys that are at hand.

    Args:
        folder: the channel.
        keys: folder of the keys, `ROLE.pem`.
    """

    def __init__(self, folder: Path, keys: Path) -> None:
        self.folder, self.keys = folder, keys
        self.metadata, self.targets = folder / "metadata", folder / "targets"

    # ------------------------------------------------------------------ keys

    @classmethod
    def create(cls, folder: Path, keys: Path, options: PublishOptions | None = None) -> Channel:
        """Make a channel without packs, and its keys.

        Raises:
            OptionError: there is a channel, or there are keys, already.
        """
        for path in (folder / "metadata" / "timestamp.json", *(keys / f"{role}.pem" for role in ROLES)):
            if path.exists():
                raise OptionError(f"{path}: exists already; publish to that channel, or name new folders")
        channel = cls(folder, keys)
        for path in (channel.metadata, channel.targets, keys):
            path.mkdir(parents=True, exist_ok=True)
        root = Root(expires=_expiry(_DAYS["root"]), consistent_snapshot=True)
        for role in ROLES:
            root.add_key(channel._new_key(role).public_key, role)
        channel._write("1.root", _signed(root, [channel._signer("root")]))
        channel._release(Targets(expires=_expiry(_DAYS["targets"])), {}, options or PublishOptions())
        return channel

    def _new_key(self, role: str) -> CryptoSigner:
        signer = CryptoSigner.generate_ed25519()
        path = self.keys / f"{role}.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(signer.private_bytes)
        return signer

    def _signer(self, role: str) -> CryptoSigner:
        path = self.keys / f"{role}.pem"
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except OSError as e:
            raise UpdateError(f"{path}: the key of the role {role} is needed and cannot be read ({e.strerror})") from e
        except (ValueError, TypeError) as e:
            raise UpdateError(f"{path}: no PEM file of a private key ({e})") from e
        if not isinstance(key, Ed25519PrivateKey):
            raise UpdateError(f"{path}: a key of another kind; an Ed25519 key is needed")
        return CryptoSigner(key)

    def rotate(self, role: str, options: PublishOptions | None = None) -> None:
        """Give a role a new key; the old one is worth nothing from then on. Needs the root key.

        Devices follow by themselves: a new root is signed by the old root key as well.

        Raises:
            OptionError: there is no such role.
            UpdateError: a key that is needed is not at hand.
        """
        if role not in ROLES:
            raise OptionError(f"role {role!r}: there are {', '.join(ROLES)}")
        root = self._root()
        old = self._signer("root")
        retired = self.keys / f"{role}.pem"
        retired.replace(self.keys / f"{role}.{root.version}.retired.pem")
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(self._new_key(role).public_key, role)
        root.version += 1
        root.expires = _expiry(_DAYS["root"])
        signers = [old] if role != "root" else [old, self._signer("root")]
        self._write(f"{root.version}.root", _signed(root, signers))
        if role != "root":
            self._release(self._targets(), self.catalogue(), options or PublishOptions())

    # ------------------------------------------------------------------ publishing

    def catalogue(self) -> dict[str, Any]:
        """The packs of the present state: name -> {"manifest", "path", "deltas"}."""
        target = self._targets().targets.get(CATALOGUE)
        if target is None:
            return {}
        packs: dict[str, Any] = json.loads(self._file_of(target).read_bytes())["packs"]
        return packs

    def publish(self, packs: Sequence[Path], options: PublishOptions | None = None) -> dict[str, Any]:
        """Publish new versions of packs; none at all signs the present state again, for longer.

        Args:
            packs: files of packs, their manifests beside them.
            options: see `PublishOptions`.

        Returns:
            The catalogue.

        Raises:
            OptionError: a version is not newer than the published one.
            PackError: a pack is not what its manifest says.
            UpdateError: a key or the channel's state cannot be read.
        """
        options = options or PublishOptions()
        for role in ("targets", "snapshot", "timestamp"):
            self._signer(role)  # before anything is written
        targets, catalogue = self._targets(), self.catalogue()
        for path in packs:
            manifest = check_pack(path)
            known = catalogue.get(manifest.name)
            if known is not None and known["manifest"]["version"] >= manifest.version:
                raise OptionError(
                    f"{path}: version {manifest.version} of {manifest.name}; version {known['manifest']['version']} is "
                    "published already, cut the pack with a larger --version"
                )
            catalogue[manifest.name] = self._add(targets, path, manifest, options)
        self._release(targets, catalogue, options)
        return catalogue

    def _add(self, targets: Targets, path: Path, manifest: PackManifest, options: PublishOptions) -> dict[str, Any]:
        """Copy a pack and make its deltas; what is too old to be needed goes."""
        home = f"{manifest.name}/"
        before = {
            int(name[len(home) : -len(".pack")]): target
            for name, target in targets.targets.items()
            if name.startswith(home) and name.endswith(".pack")
        }
        for name in [n for n in targets.targets if n.startswith(home) and n.endswith(".delta")]:
            del targets.targets[name]  # they lead to the version before
        deltas = []
        for version in sorted(before, reverse=True)[: options.keep]:
            old = self._file_of(before[version])
            name = f"{home}{version}-{manifest.version}.delta"
            scratch = self.targets / f".{manifest.name}.delta.partial"
            if _bundle_of(before[version]) == manifest.bundle_id:
                inside = make_delta(old, path, scratch)
                if scratch.stat().st_size <= _WORTH * manifest.bytes:
                    content = before[version].unrecognized_fields["custom"]["content_sha256"]
                    target = self._store(targets, name, scratch, {})
                    deltas.append({"from": content, "path": name, "bytes": target.length, "unpacked": inside})
                scratch.unlink(missing_ok=True)
        for version in sorted(before, reverse=True)[options.keep :]:
            del targets.targets[f"{home}{version}.pack"]
        name = f"{home}{manifest.version}.pack"
        custom = {"bundle_id": manifest.bundle_id, "content_sha256": manifest.content_sha256}
        self._store(targets, name, path, custom)
        return {"manifest": manifest.as_json(), "path": name, "deltas": deltas}

    def _store(self, targets: Targets, name: str, source: Path, custom: dict[str, str]) -> TargetFile:
        target = TargetFile.from_file(name, str(source), ["sha256"])
        if custom:
            target.unrecognized_fields["custom"] = custom
        path = self._file_of(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, source.read_bytes())
        targets.targets[name] = target
        return target

    def _release(self, targets: Targets, catalogue: dict[str, Any], options: PublishOptions) -> None:
        """Sign and write: targets first, the timestamp that makes them valid last; then remove what is not listed."""
        data = dump_json({"format": CHANNEL_FORMAT, "packs": catalogue})
        target = TargetFile.from_data(CATALOGUE, data, ["sha256"])
        write_atomically(self._file_of(target), data)
        targets.targets[CATALOGUE] = target
        if (self.metadata / "timestamp.json").exists():
            timestamp = self._load("timestamp", Timestamp)
            snapshot = self._load(f"{timestamp.snapshot_meta.version}.snapshot", Snapshot)
            for state in (targets, snapshot, timestamp):
                state.version += 1
        else:
            timestamp, snapshot = Timestamp(), Snapshot()
        targets.expires = _expiry(_DAYS["targets"])
        snapshot.meta["targets.json"] = MetaFile(version=targets.version)
        timestamp.snapshot_meta = MetaFile(version=snapshot.version)
        snapshot.expires = timestamp.expires = _expiry(options.days)
        self._write(f"{targets.version}.targets", _signed(targets, [self._signer("targets")]))
        self._write(f"{snapshot.version}.snapshot", _signed(snapshot, [self._signer("snapshot")]))
        self._write("timestamp", _signed(timestamp, [self._signer("timestamp")]))
        listed = {self._file_of(t) for t in targets.targets.values()}
        for path in self.targets.rglob("*"):
            if path.is_file() and path not in listed:
                path.unlink()

    # ------------------------------------------------------------------ files

    def _file_of(self, target: TargetFile) -> Path:
        home, _, base = target.path.rpartition("/")
        return self.targets / home / f"{target.hashes['sha256']}.{base}"

    def _root(self) -> Root:
        versions = [int(p.name.split(".")[0]) for p in self.metadata.glob("*.root.json")]
        if not versions:
            raise UpdateError(f"{self.folder}: no channel; make one with `delf-edge publish --new`")
        root: Root = self._load(f"{max(versions)}.root", Root)
        return root

    def _targets(self) -> Targets:
        self._root()
        timestamp = self._load("timestamp", Timestamp)
        snapshot = self._load(f"{timestamp.snapshot_meta.version}.snapshot", Snapshot)
        targets: Targets = self._load(f"{snapshot.meta['targets.json'].version}.targets", Targets)
        return targets

    def _load(self, name: str, kind: type[Any]) -> Any:
        path = self.metadata / f"{name}.json"
        try:
            signed = Metadata.from_file(str(path)).signed
        except Exception as e:  # tuf's own errors, of JSON and of values
            raise UpdateError(f"{path}: cannot be read as metadata of a channel ({e}); restore it from a copy") from e
        if not isinstance(signed, kind):
            raise UpdateError(f"{path}: metadata of another role; restore it from a copy")
        return signed

    def _write(self, name: str, metadata: Metadata[Any]) -> None:
        write_atomically(self.metadata / f"{name}.json", metadata.to_bytes())


def _bundle_of(target: TargetFile) -> str:
    """The bundle of a published pack."""
    return str(target.unrecognized_fields["custom"]["bundle_id"])


def _signed(content: Any, signers: Sequence[CryptoSigner]) -> Metadata[Any]:
    metadata = Metadata(content)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def _expiry(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=days)
