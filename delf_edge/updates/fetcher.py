"""Files of a channel: from a folder, a web server, or any URL that fsspec knows. The only door to the network."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote_to_bytes, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, RepositoryError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from delf_edge.errors import UpdateError
from delf_edge.files import parse_json, resolved

_BLOCK = 1 << 16


def as_url(source: str) -> str:
    """The URL of a folder, or the URL that was given."""
    if "://" in source:
        return source.rstrip("/")
    return "file://" + quote(os.fsencode(resolved(source)))


class Fetcher(FetcherInterface):
    """Reads files and counts their bytes.

    Args:
        scratch: folder for what is being read: a device's /tmp may be small.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.n_bytes = 0
        self._web = Urllib3Fetcher(app_user_agent="delf-edge")

    def _fetch(self, url: str) -> Iterator[bytes]:
        for block in self._blocks(url):
            self.n_bytes += len(block)
            yield block

    def _blocks(self, url: str) -> Iterator[bytes]:
        scheme = urlsplit(url).scheme
        if scheme in ("http", "https"):
            return self._web.fetch(url)
        return _read(Path(os.fsdecode(unquote_to_bytes(urlsplit(url).path))) if scheme == "file" else url)

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """As the method it replaces, with its temporary file in `scratch`."""
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            n = 0
            try:
                for block in self.fetch(url):
                    n += len(block)
                    if n > max_length:
                        raise DownloadLengthMismatchError(f"{url}: more than the {max_length} bytes it should have")
                    file.write(block)
            except (DownloadError, OSError):
                raise
            except Exception as e:  # whatever a file system of fsspec raises
                raise DownloadError(f"{url}: {e}") from e
            file.seek(0)
            if "/metadata/" in url:
                _check_form(url, file.read())
                file.seek(0)
            yield file


def _check_form(url: str, data: bytes) -> None:
    """Metadata must be written as channels write it: another spelling of the same signature is a change too.

    Raises:
        RepositoryError: it is not.
    """
    try:
        facts = parse_json(data)
        spelt = json.dumps(facts, separators=(",", ":"), sort_keys=True).encode()
        signatures = [str(signature["sig"]) for signature in facts["signatures"]]
    except (ValueError, KeyError, TypeError) as e:
        raise RepositoryError(f"{url}: no metadata of a channel ({e})") from e
    if spelt != data or any(signature != signature.lower() for signature in signatures):
        raise RepositoryError(f"{url}: not as it was published")


def _read(location: Path | str) -> Iterator[bytes]:
    try:
        with _open(location) as file:
            yield from iter(lambda: file.read(_BLOCK), b"")
    except FileNotFoundError as e:
        raise DownloadHTTPError(f"{location}: no such file", 404) from e
    except OSError as e:
        raise DownloadError(f"{location}: {e}") from e


def _open(location: Path | str) -> IO[bytes]:
    if isinstance(location, Path):
        return location.open("rb")
    try:
        import fsspec
    except ImportError as e:
        raise UpdateError(f"{location}: needs fsspec; python -m pip install 'delf-edge[build]'") from e
    return fsspec.open(location, "rb").open()  # type: ignore[no-any-return]
