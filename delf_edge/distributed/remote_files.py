"""Files that workers read and write, on any file system that fsspec knows: whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from tenacity import retry, retry_if_exception_type, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from delf_edge.errors import BuildError
from delf_edge.files import replacing, write_atomically

MAX_PHOTO = 256 << 20  # bytes of a file that are read at most
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)  # no use in trying again


@retry(
    retry=retry_if_exception_type(OSError) & retry_if_not_exception_type(ABSENT),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=1),
    reraise=True,
)
def fetch(url: str) -> bytes:
    """The bytes of a photo, tried again where the fault may pass.

    Raises:
        FileNotFoundError, PermissionError: it is not there, or not for us.
        OSError: it could not be read after several tries.
        BuildError: it is larger than any photo.
    """
    with fsspec.open(url, "rb") as file:
        data: bytes = file.read(MAX_PHOTO + 1)
    if len(data) > MAX_PHOTO:
        raise BuildError(f"larger than {MAX_PHOTO} bytes")
    return data


def put_file(data: bytes, url: str) -> None:
    """Write a file so that it is there whole or not at all.

    Local files get their name by an atomic rename; an object store shows an object only once it is complete.
    """
    files, path = fsspec.core.url_to_fs(url)
    files.makedirs(path.rpartition("/")[0], exist_ok=True)
    if isinstance(files, LocalFileSystem):
        write_atomically(Path(path), data)
        return
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    files.pipe_file(partial, data)
    files.mv(partial, path)


def put_path(path: Path, url: str) -> None:
    """As `put_file`, for a file that may be larger than the memory."""
    files, target = fsspec.core.url_to_fs(url)
    files.makedirs(target.rpartition("/")[0], exist_ok=True)
    if isinstance(files, LocalFileSystem):
        with replacing(Path(target)) as local:
            shutil.copyfile(path, local)
        return
    partial = f"{target}.{uuid.uuid4().hex[:8]}.partial"
    files.put_file(str(path), partial)
    files.mv(partial, target)


def finished(out: str) -> set[str]:
    """Names of the shards in a folder that have a manifest."""
    files, path = fsspec.core.url_to_fs(out)
    if not files.exists(path):
        return set()
    files.invalidate_cache()
    names = (str(entry).rpartition("/")[2] for entry in files.ls(path, detail=False))
    return {name[: -len(".json")] for name in names if name.endswith(".json")}


def names_in(folder: str) -> set[str]:
    """Names of what lies in a folder; empty where there is none."""
    files, path = fsspec.core.url_to_fs(folder)
    files.invalidate_cache()
    if not files.isdir(path):
        return set()
    return {str(entry).rstrip("/").rpartition("/")[2] for entry in files.ls(path, detail=False)}
