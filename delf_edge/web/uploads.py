"""Photos that come with a request: as its body, or as a form with the photo in it (`curl -F photo=@front.jpg`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

MAX_FIELDS = 8


@dataclass(frozen=True, slots=True)
class Upload:
    """A photo and what was said of it.

    Attributes:
        data: bytes of the photo's file.
        fields: text fields of the form; empty where the photo is the whole body.
    """

    data: bytes
    fields: Mapping[str, str] = field(default_factory=dict)


class _InMemory(MultiPartParser):
    """The body is in memory already and has passed the cap: nothing goes to a temporary file."""

    spool_max_size = 1 << 40


async def read_upload(headers: Headers, body: bytes) -> Upload:
    """The photo in a body.

    Args:
        headers: of the request.
        body: all of it.

    Raises:
        HTTPException: 400 a form that is broken, or that has not exactly one file; 415 a form of the kind that
            cannot carry a file.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded" and not _looks_like_a_photo(body):
        raise HTTPException(
            415, "this kind of form carries no file; send the photo as the body, or with curl -F photo=@FILE"
        )
    if kind != "multipart/form-data":
        return Upload(body)
    try:
        form = await _InMemory(headers, _whole(body), max_files=1, max_fields=MAX_FIELDS).parse()
    except (MultiPartException, FormParserError, KeyError, ValueError) as e:
        raise HTTPException(400, f"the form cannot be read: {getattr(e, 'message', e)}") from None
    try:
        return await _only_photo(form)
    finally:
        await form.close()


async def _only_photo(form: FormData) -> Upload:
    files: list[UploadFile] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.append(value)
        elif name in fields:
            raise HTTPException(400, f"the form has the field {name[:40]!r} twice")
        else:
            fields[name] = value
    if len(files) != 1:
        raise HTTPException(400, "the form has no file; send the photo as one: curl -F photo=@FILE")
    data = await files[0].read()
    if not data:
        raise HTTPException(400, "the photo in the form is empty")
    return Upload(data, fields)


def _looks_like_a_photo(body: bytes) -> bool:
    """`curl --data-binary @photo.jpg` says that a photo is a form: bytes that no such form has tell."""
    return any(byte < 9 or byte > 126 for byte in body[:64])


async def _whole(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
