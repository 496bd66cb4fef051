"""HTTP without surprises: bodies bounded, pictures decoded by us, errors as RFC 9457 problem details."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive

from components.inpainting.images import (
    Bytes,
    ImageError,
    MaskError,
    TooLargeError,
    UnknownFormatError,
    check_pair,
    decode_image,
    decode_mask,
)

MAX_BODY = 64 * 1024 * 1024
FORMATS = ("PNG", "JPEG", "WEBP")
_STATUS = {
    UnknownFormatError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TooLargeError: HTTPStatus(413),
    MaskError: HTTPStatus.UNPROCESSABLE_ENTITY,
}


class Problem(Exception):
    """An answer that is an error: its status and one sentence that says what to do."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        self.status, self.detail = status, detail


async def read_pair(request: Request) -> tuple[bytes, bytes]:
    """The bytes of the ``image`` and ``mask`` parts of a multipart request. Raises ``Problem``."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send multipart/form-data with the files 'image' and 'mask', as curl -F does.",
        )
    length = request.headers.get("content-length", "0")
    if not length.isdigit():
        raise Problem(HTTPStatus.BAD_REQUEST, "The header Content-Length is no number.")
    if int(length) > MAX_BODY:
        raise _too_large()
    bounded = Request(request.scope, _bounded(request))
    try:
        async with bounded.form(max_files=2, max_fields=8) as form:
            return await _file(form, "image"), await _file(form, "mask")
    except HTTPException as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The form cannot be read: {error.detail}") from None
    except ClientDisconnect:
        raise Problem(HTTPStatus.BAD_REQUEST, "The connection ended before the form did.") from None


def decode_pair(image: bytes, mask: bytes) -> tuple[Bytes, Bytes]:
    """Decode a picture (``H,W,3``) and its mask (``H,W``). Raises ``Problem``."""
    name = "image"
    try:
        picture = decode_image(image, formats=FORMATS)
        name = "mask"
        holes = decode_mask(mask, formats=FORMATS)
        check_pair(picture, holes)
        return picture, holes
    except ImageError as error:
        status = _STATUS.get(type(error), HTTPStatus.BAD_REQUEST)
        raise Problem(status, f"{name}: {error}.") from None


def problem_response(request: Request, problem: Exception) -> JSONResponse:
    """RFC 9457 problem details."""
    assert isinstance(problem, Problem)
    body = {"type": "about:blank", "title": problem.status.phrase, "status": int(problem.status)}
    return JSONResponse(
        {**body, "detail": problem.detail}, status_code=problem.status, media_type="application/problem+json"
    )


def refusal_response(request: Request, refusal: Exception) -> JSONResponse:
    """What the router itself refuses (unknown path, wrong method) as problem details."""
    assert isinstance(refusal, HTTPException)
    detail = f"{request.method} {request.url.path} is not served; POST /inpaint or GET /model."
    return problem_response(request, Problem(HTTPStatus(refusal.status_code), detail))


async def _file(form: FormData, name: str) -> bytes:
    part = form.get(name)
    if not isinstance(part, UploadFile):
        found = "is text, not a file" if part is not None else "is missing"
        raise Problem(HTTPStatus.BAD_REQUEST, f"The file {name!r} {found}; with curl, write -F {name}=@{name}.png.")
    return await part.read()


def _bounded(request: Request) -> Receive:
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise _too_large()
        return message

    return receive


def _too_large() -> Problem:
    return Problem(HTTPStatus(413), f"The request is larger than {MAX_BODY >> 20} MB; send a smaller picture.")
