"""Request bodies without surprises: bounded, kept in memory, files told from text, nothing ever fetched."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from anyio import to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from serving.options import FILES, Options, parse_form, parse_json
from serving.problems import Problem

FORM, JSON = "multipart/form-data", "application/json"


@dataclass(frozen=True)
class Asked:
    """What a request asks for: the bytes of a picture, of a mask or none, and options."""

    image: bytes
    mask: bytes | None
    options: Options


async def read_asked(request: Request, max_bytes: int) -> Asked:
    """Read a request of at most ``max_bytes``, a multipart form or JSON. Raises ``Problem``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FORM, JSON):
        raise Problem(415, f"Send {FORM} with the file 'image', as curl -F does, or {JSON} with base64.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "The body is compressed (Content-Encoding); send it as it is, pictures do not shrink.")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise Problem(400, "The header Content-Length is no number.")
    if int(length[:18]) > max_bytes or len(length) > 18:
        raise _too_large(max_bytes)
    try:
        return await (_read_form if kind == FORM else _read_json)(request, max_bytes)
    except ClientDisconnect:
        raise Problem(400, "The connection ended before the request did.") from None


class _FormParser(MultiPartParser):
    """Notices whether the form came to its end; Starlette's leaves out the part that was cut off, and says nothing."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _read_form(request: Request, max_bytes: int) -> Asked:
    parser = _FormParser(request.headers, _bounded(request, max_bytes), max_files=2, max_fields=8)
    parser.spool_max_size = max_bytes + 1  # in memory: no picture on disk, and none needed that can be written
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(400, f"The form cannot be read: {error.message}") from None
    try:
        if not parser.ended:
            raise Problem(400, "The form ends before its last boundary; send all of it.")
        return await _asked(form)
    finally:
        await form.close()


async def _asked(form: FormData) -> Asked:
    items = form.multi_items()
    repeated = [name for name, times in Counter(name for name, _ in items).items() if times > 1]
    if repeated:
        raise Problem(422, f"The field {repeated[0][:80]!r} is there more than once; send one.")
    options = parse_form({name: _text(name, value) for name, value in items if name not in FILES})
    files = {name: await _file(name, part).read() for name, part in items if name in FILES}
    if "image" not in files:
        raise Problem(422, "The file 'image' is missing; with curl, write -F image=@photo.png.")
    return Asked(files["image"], files.get("mask"), options)


def _text(name: str, value: UploadFile | str) -> str:
    if isinstance(value, str):
        return value
    if name in Options.model_fields:
        raise Problem(422, f"The field {name!r} is a file, not text; with curl, write -F {name}=VALUE.")
    return ""  # of a field that does not exist


def _file(name: str, value: UploadFile | str) -> UploadFile:
    if isinstance(value, UploadFile):
        return value
    advice = f"nothing is fetched; with curl, write -F {name}=@{name}.png"
    raise Problem(422, f"The field {name!r} is text, not a file, and {advice}.")


async def _read_json(request: Request, max_bytes: int) -> Asked:
    body = bytearray()
    async for chunk in _bounded(request, max_bytes):
        body += chunk
    return await to_thread.run_sync(_asked_as_json, bytes(body))


def _asked_as_json(body: bytes) -> Asked:
    asked = parse_json(body)
    options = Options(**{name: getattr(asked, name) for name in Options.model_fields})
    mask = None if asked.mask is None else _decoded("mask", asked.mask)
    return Asked(_decoded("image", asked.image), mask, options)


def _decoded(name: str, text: str) -> bytes:
    if text[:5].lower() == "data:":
        raise Problem(422, f"{name}: this is a data: URI; send what follows its comma, the base64 alone.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        advice = "send the file's bytes; nothing is fetched from addresses"
        raise Problem(422, f"{name}: this is no base64 in the standard alphabet; {advice}.") from None


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> Problem:
    return Problem(413, f"The request is larger than {max_bytes / (1 << 20):g} MB; send a smaller picture.")
