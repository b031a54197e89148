"""Channels and devices: small deltas, rotation, rollback protection, and an answer whatever happens on the way."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from delf_edge import Bundle, Recognizer
from delf_edge.errors import OptionError, PackError, UpdateError, UpdateRefusedError
from delf_edge.packs.create import Selection, cut_pack
from delf_edge.packs.installed import in_use
from delf_edge.packs.manifest import check_pack, manifest_path
from delf_edge.storage.store import Store
from testing.paths import TINY_BUNDLE
from testing.synthetic_database import add_images, features_of, make_database

pytest.importorskip("tuf", reason="the extra 'update' is not installed")
from delf_edge.updates.client import UpdateReport, update
from delf_edge.updates.delta import apply_delta, make_delta
from delf_edge.updates.fetcher import Fetcher
from delf_edge.updates.publisher import Channel, PublishOptions
from delf_edge.updates.self_test import prove_pack
from testing.broken_fetcher import Cut


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture(scope="module")
def versions(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions of a pack: images are added, one is renamed, one goes, a landmark moves."""
    folder = tmp_path_factory.mktemp("versions")
    database = make_database(folder / "all.db", bundle, n_images=200, n=150)
    packs = []
    with Store.open(database) as store:
        for version in (1, 2, 3):
            if version == 2:
                add_images(store, bundle, [500, 501], n=150)
                store.remove("7.jpg")
                store.relabel("8.jpg", "somewhere else")
                store.set_landmark("place 3", latitude=50, longitude=1)
            if version == 3:
                add_images(store, bundle, [502], n=150)
                store.remove("8.jpg")
            packs.append(folder / f"{version}.pack")
            cut_pack(store, packs[-1], name="poland", version=version)
    return packs


@pytest.fixture
def channel(tmp_path: Path, versions: list[Path]) -> Channel:
    channel = Channel.create(tmp_path / "channel", tmp_path / "keys")
    channel.publish(versions[:1])
    return channel


def follow(channel: Channel, device: Path, bundle: Bundle, fetcher: Fetcher | None = None) -> UpdateReport:
    return update(
        str(channel.folder), device, bundle, root=channel.metadata / "1.root.json", fetcher=fetcher, wanted=["poland"]
    )


def answers(device: Path, bundle: Bundle) -> int:
    """The version in use, which must answer."""
    own = device.parent / "own.db"
    with Recognizer.open(own, bundle=bundle, packs=[device]) as recognizer:
        assert recognizer.rank(features_of(recognizer, 11), 1)[0].name != ""
        (pack,) = recognizer.combined.packs
        return check_pack(pack.path).version


def test_a_delta_leads_from_one_version_to_the_next(versions: list[Path], tmp_path: Path) -> None:
    size = make_delta(versions[0], versions[1], tmp_path / "d")
    wanted = check_pack(versions[1])
    made = apply_delta(versions[0], tmp_path / "d", tmp_path / "new.pack", wanted, size)
    assert made.content_sha256 == wanted.content_sha256
    assert (tmp_path / "d").stat().st_size < 0.1 * wanted.bytes
    with Store.open(tmp_path / "new.pack", mode="ro") as store:
        assert store.verify() == []
        assert store.image("8.jpg").landmark == "somewhere else"
    delta = (tmp_path / "d").read_bytes()
    for spoilt in (delta[:-5], delta[:100] + bytes([delta[100] ^ 1]) + delta[101:]):
        (tmp_path / "bad").write_bytes(spoilt)
        with pytest.raises(PackError):
            apply_delta(versions[0], tmp_path / "bad", tmp_path / "worse.pack", wanted, size)
        assert not (tmp_path / "worse.pack").exists()
    with pytest.raises(PackError, match="damaged"):
        apply_delta(versions[0], tmp_path / "d", tmp_path / "worse.pack", wanted, size - 1)
    with pytest.raises(PackError, match="does not lead"):
        apply_delta(versions[2], tmp_path / "d", tmp_path / "worse.pack", wanted, size)


def test_a_device_follows_by_deltas(channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path) -> None:
    device = tmp_path / "device"
    first = follow(channel, device, bundle)
    assert [(p.name, p.status, p.version, p.how) for p in first.packs] == [("poland", "installed", 1, "whole")]
    assert answers(device, bundle) == 1
    channel.publish(versions[1:2])
    second = follow(channel, device, bundle)
    assert [(p.status, p.version, p.how) for p in second.packs] == [("updated", 2, "delta")]
    assert answers(device, bundle) == 2
    again = follow(channel, device, bundle)
    assert [p.status for p in again.packs] == ["unchanged"]
    assert again.bytes < second.bytes < 0.2 * first.bytes
    channel.publish(versions[2:])
    far = tmp_path / "far"
    assert follow(channel, far, bundle).packs[0].how == "whole"
    assert follow(channel, device, bundle).packs[0].how == "delta"
    assert answers(device, bundle) == answers(far, bundle) == 3
    a, b = in_use(device, "poland"), in_use(far, "poland")
    assert a is not None
    assert b is not None
    assert a.manifest.content_sha256 == b.manifest.content_sha256
    names = sorted(path.name.partition("-")[0] for path in (device / "poland").glob("*.pack"))
    assert names == ["2", "3"]  # the one before is kept


def test_a_channel_in_a_folder_of_any_name(channel: Channel, bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 100%25 #1")  # Latin-1, as on an old card
    channel.folder.rename(folder)
    report = update(str(folder), tmp_path / "device", bundle, root=folder / "metadata" / "1.root.json")
    assert [p.status for p in report.packs] == ["installed"]
    with pytest.raises(OptionError, match="no file can have this name"):
        update("\ud800", tmp_path / "device", bundle)


def test_over_http(channel: Channel, bundle: Bundle, tmp_path: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(channel.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        report = update(url, tmp_path / "device", bundle, root=channel.metadata / "1.root.json")
        assert [p.status for p in report.packs] == ["installed"]
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(UpdateError, match="cannot be fetched"):
        update(url, tmp_path / "device", bundle)
    assert answers(tmp_path / "device", bundle) == 1


def test_keys_rotate_and_devices_follow(channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path) -> None:
    device = tmp_path / "device"
    follow(channel, device, bundle)
    for role in ("targets", "timestamp", "root", "snapshot"):
        channel.rotate(role)
    channel.publish(versions[1:2])
    assert follow(channel, device, bundle).packs[0].status == "updated"
    # who has only the stolen old key of `targets` cannot publish any more
    stolen = next((tmp_path / "keys").glob("targets.*.retired.pem"))
    shutil.copy(stolen, tmp_path / "keys" / "targets.pem")
    channel.publish(versions[2:])
    with pytest.raises(UpdateRefusedError, match="targets"):
        follow(channel, device, bundle)
    assert answers(device, bundle) == 2


def test_an_older_state_and_an_older_pack_are_refused(
    channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path
) -> None:
    device, old = tmp_path / "device", tmp_path / "old"
    shutil.copytree(channel.folder, old)
    channel.publish(versions[1:2])
    follow(channel, device, bundle)
    with pytest.raises(UpdateRefusedError, match="timestamp"):
        update(str(old), device, bundle)
    shutil.rmtree(device / ".trust")  # even a device that has forgotten the channel's state keeps its newer pack
    report = update(str(old), device, bundle, root=channel.metadata / "1.root.json")
    assert [(p.status, p.version) for p in report.packs] == [("refused", 2)]
    assert "never installed over a newer one" in str(report.packs[0].reason)
    assert answers(device, bundle) == 2
    with pytest.raises(OptionError, match="published"):
        channel.publish(versions[1:2])


def test_a_foreign_channel_and_a_foreign_bundle_are_refused(
    channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    with pytest.raises(UpdateError, match="--root"):
        update(str(channel.folder), device, bundle)
    follow(channel, device, bundle)
    foreign = Channel.create(tmp_path / "foreign", tmp_path / "foreign-keys")
    foreign.publish(versions[1:2])
    with pytest.raises(UpdateRefusedError):
        update(str(foreign.folder), device, bundle)
    with pytest.raises(UpdateRefusedError, match="another root"):
        update(str(foreign.folder), device, bundle, root=foreign.metadata / "1.root.json")
    with Store.open(versions[0], mode="ro") as store:
        layout = store.layout
    with Store.open(tmp_path / "o.db", bundle_id="f" * 12, layout=layout) as store:
        add_images(store, bundle, range(3))
        cut_pack(store, tmp_path / "other.pack", name="other", version=1)
    channel.publish([tmp_path / "other.pack"])
    report = update(str(channel.folder), device, bundle, wanted=["poland", "other", "nothing"])
    assert [(p.name, p.status) for p in report.packs] == [
        ("poland", "unchanged"),
        ("other", "refused"),
        ("nothing", "failed"),
    ]
    assert answers(device, bundle) == 1


def test_a_stale_channel_is_refused(channel: Channel, bundle: Bundle, tmp_path: Path) -> None:
    device = tmp_path / "device"
    follow(channel, device, bundle)
    channel.publish([], PublishOptions(days=1))
    path = channel.metadata / "timestamp.json"
    from tuf.api.metadata import Metadata

    timestamp = Metadata.from_file(str(path))
    timestamp.signed.expires = timestamp.signed.expires.replace(year=2020)
    timestamp.signed.version += 1
    key = load_pem_private_key((channel.keys / "timestamp.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    timestamp.sign(CryptoSigner(key))
    timestamp.to_file(str(path))
    with pytest.raises(UpdateRefusedError, match="stale"):
        follow(channel, device, bundle)
    assert answers(device, bundle) == 1


def test_a_version_that_fails_its_self_test_is_not_used(
    channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "device"
    follow(channel, device, bundle)
    assert prove_pack(versions[1], bundle) == 8
    monkeypatch.setattr("delf_edge.updates.self_test.Recognizer.rank", lambda *_: [])
    channel.publish(versions[1:2])
    report = follow(channel, device, bundle)
    assert (report.packs[0].status, report.packs[0].version) == ("refused", 1)
    assert "failed its self-test" in str(report.packs[0].reason)
    monkeypatch.undo()
    assert answers(device, bundle) == 1
    assert [p.name[0] for p in (device / "poland").glob("*.pack")] == ["1"]


def test_a_version_that_spoils_once_in_use_goes_back(
    channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "device"
    follow(channel, device, bundle)
    channel.publish(versions[1:2])

    def failing_medium(path: Path, *_: object) -> int:
        with path.open("r+b") as file:
            file.seek(5000)
            file.write(b"spoilt")
        return 0

    monkeypatch.setattr("delf_edge.updates.client.prove_pack", failing_medium)
    report = follow(channel, device, bundle)
    assert (report.packs[0].status, report.packs[0].version) == ("refused", 1)
    assert answers(device, bundle) == 1


def test_updates_cut_off_at_any_byte(channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path) -> None:
    device = tmp_path / "device"
    whole = follow(channel, device, bundle)
    channel.publish(versions[1:2])
    spare = tmp_path / "spare"
    shutil.copytree(device, spare, symlinks=True)
    total = follow(channel, device, bundle).bytes
    assert total < whole.bytes
    for limit in np.random.default_rng(0).integers(0, total, 12):
        shutil.rmtree(device)
        shutil.copytree(spare, device, symlinks=True)
        try:
            report = follow(channel, device, bundle, Cut(tmp_path, int(limit)))
        except UpdateError:
            assert answers(device, bundle) == 1
        else:
            assert report.packs[0].status in ("failed", "refused", "updated")
            assert answers(device, bundle) == report.packs[0].version
    assert follow(channel, device, bundle).packs[0].version == 2


CHILD = """
import sys
from pathlib import Path
from delf_edge import Bundle
from delf_edge.updates.client import update
bundle = Bundle.load(sys.argv[3])
print("ready", flush=True)
update(sys.argv[1], Path(sys.argv[2]), bundle)
"""


def test_updates_killed_at_any_moment(channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path) -> None:
    device, spare = tmp_path / "device", tmp_path / "spare"
    follow(channel, device, bundle)
    channel.publish(versions[1:2])
    shutil.copytree(device, spare, symlinks=True)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(5):
        shutil.rmtree(device)
        shutil.copytree(spare, device, symlinks=True)
        command = [sys.executable, "-c", CHILD, str(channel.folder), str(device), str(TINY_BUNDLE)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(float(rng.random()) * 1.5)
            child.send_signal(signal.SIGKILL)
        seen.add(answers(device, bundle))
        assert follow(channel, device, bundle).packs[0].version == 2
        assert answers(device, bundle) == 2
    assert seen <= {1, 2}


def test_every_changed_byte_of_a_channel_is_refused(
    channel: Channel, versions: list[Path], bundle: Bundle, tmp_path: Path
) -> None:
    device, spare = tmp_path / "device", tmp_path / "spare"
    follow(channel, device, bundle)
    channel.publish(versions[1:2])
    shutil.copytree(device, spare, symlinks=True)
    rng = np.random.default_rng(2)
    current = [p for p in (channel.folder / "targets").rglob("*") if p.is_file() and ".1.pack" not in p.name]
    files = [channel.metadata / "timestamp.json", *current]
    files += [max(channel.metadata.glob(f"*.{role}.json")) for role in ("targets", "snapshot")]
    for path in files:
        sound = path.read_bytes()
        for _ in range(3):
            spoilt = bytearray(sound)
            spoilt[int(rng.integers(0, len(sound)))] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(spoilt)
            shutil.rmtree(device)
            shutil.copytree(spare, device, symlinks=True)
            try:
                report = follow(channel, device, bundle)
            except UpdateError:
                pass
            else:  # a spoilt delta is refused, and the whole pack fetched instead; or the other way round
                pack = report.packs[0]
                assert pack.how == ("whole" if path.suffix == ".delta" else "delta") or pack.status == "refused"
            version = answers(device, bundle)
            used = in_use(device, "poland")
            assert used is not None
            assert used.manifest.content_sha256 == check_pack(versions[version - 1]).content_sha256
        path.write_bytes(sound)


def test_selections_travel_with_the_manifest(bundle: Bundle, tmp_path: Path) -> None:
    database = make_database(tmp_path / "a.db", bundle, n_images=20)
    with Store.open(database, mode="ro") as store:
        cut_pack(store, tmp_path / "a.pack", name="a", version=1, selection=Selection(collection="south"))
    channel = Channel.create(tmp_path / "channel", tmp_path / "keys")
    channel.publish([tmp_path / "a.pack"])
    update(str(channel.folder), tmp_path / "device", bundle, root=channel.metadata / "1.root.json")
    installed = in_use(tmp_path / "device", "a")
    assert installed is not None
    assert installed.manifest.selection == {"collection": "south"}
    assert json.loads(manifest_path(installed.path).read_text())["selection"] == {"collection": "south"}
    assert (tmp_path / "keys" / "root.pem").stat().st_mode & 0o077 == 0
