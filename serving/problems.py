"""Errors as RFC 9457 problem details: a status, and one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

from components.inpainting.errors import ImageError, MaskError, NoMemoryError, TooLargeError, UnknownFormatError

MEDIA_TYPE = "application/problem+json"
_STATUS: dict[type[ImageError], int] = {
    UnknownFormatError: 415,
    TooLargeError: 413,
    MaskError: 422,
    NoMemoryError: 503,
}


class Problem(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def picture_problem(name: str, error: ImageError) -> Problem:
    """The problem for the picture or mask of a request that cannot be used."""
    status = _STATUS.get(type(error), 400)
    return Problem(status, f"{name}: {error}.", {"Retry-After": "5"} if status == 503 else None)


def problem_response(problem: Problem, request_id: str) -> JSONResponse:
    """The answer to a request that met a problem."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    return JSONResponse(body, problem.status, problem.headers, MEDIA_TYPE)
