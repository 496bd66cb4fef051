"""A client of the inpaint endpoint: ``InpaintClient("http://host:3000").inpaint(image, mask)``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from components.inpainting.images import Bytes, decode_image, encode_png

Picture = Path | bytes | Bytes
"""A file, an encoded picture, or pixels (uint8 ``H,W,3``, a mask ``H,W`` with 255 for holes)."""

_LATER = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
_PAUSE = 1.0  # seconds, where the server does not say how long to wait


class InpaintError(ValueError):
    """The endpoint did not repair a picture: ``status`` is HTTP's, 0 where no answer came; the message says why."""

    def __init__(self, sentence: str, status: int = 0, request_id: str = "") -> None:
        super().__init__(sentence)
        self.status, self.request_id = status, request_id


@dataclass(frozen=True)
class Repaired:
    """An answer of the endpoint."""

    content: bytes
    media_type: str  # image/png, image/jpeg, image/webp
    mask_source: str  # given, alpha or found
    version: str  # of the model that repaired
    request_id: str

    @property
    def pixels(self) -> Bytes:
        """The picture decoded, uint8 ``H,W,3``."""
        return decode_image(self.content)


class InpaintClient:
    """A connection to an endpoint, to use as a context or to ``close``; several threads may share it.

    Parameters
    ----------
    url:
        Where the endpoint is, as in ``http://localhost:3000``.
    api_key:
        For an endpoint that wants one.
    timeout:
        Seconds to wait for one answer.
    patience:
        Seconds to go on trying while the endpoint says that it is busy (429, 503), as long as it says it.
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout: float = 120, patience: float = 60) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise InpaintError(f"{url!r} is no address ({error}); write e.g. http://localhost:3000") from None
        self._patience = patience

    def inpaint(self, image: Picture, mask: Picture | None = None, **options: str | int) -> Repaired:
        """Repair a picture where its mask is white; without a mask where it is transparent, else where damage is found.

        ``options`` are the endpoint's: ``format``, ``quality``, ``grow_mask``, ``feather``, ``output``. Raises
        ``InpaintError`` with the endpoint's own sentence.
        """
        files = {"image": _upload(image)} | ({"mask": _upload(mask)} if mask is not None else {})
        answer = self._insist("POST", "/inpaint", files=files, data={name: str(o) for name, o in options.items()})
        told = answer.headers
        if not told.get("content-type", "").startswith("image/"):
            raise InpaintError(f"{answer.url} answers with no picture; is it an inpaint endpoint?", answer.status_code)
        return Repaired(
            content=answer.content,
            media_type=told.get("content-type", ""),
            mask_source=told.get("x-mask-source", ""),
            version=told.get("x-model-version", ""),
            request_id=told.get("x-request-id", ""),
        )

    def model(self) -> dict[str, Any]:
        """What is served: version, digests, scores. Raises ``InpaintError``."""
        described: dict[str, Any] = self._insist("GET", "/model").json()
        return described

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> InpaintClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _insist(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """Ask, again while the endpoint is busy and patience lasts."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = self._http.request(method, path, **sent)
            except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
                raise InpaintError(
                    f"{self._http.base_url} does not answer ({_named(error)}); is it served there?"
                ) from None
            pause = _retry_after(answer.headers)
            if answer.status_code not in _LATER or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _upload(picture: Picture) -> tuple[str, bytes]:
    """A file name and the bytes to send; the endpoint goes by the bytes, and by no name."""
    if isinstance(picture, Path):
        return picture.name, picture.read_bytes()
    return "picture", picture if isinstance(picture, bytes) else encode_png(picture)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait, of a Retry-After header in seconds or as a date."""
    said = headers.get("retry-after", "")
    if said.isdigit():
        return float(said)
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    return _PAUSE


def _refusal(answer: httpx.Response) -> InpaintError:
    """An answer that is an error, by its problem details (RFC 9457) where it has some."""
    problem: Any = None
    with suppress(ValueError):
        problem = answer.json()
    problem = problem if isinstance(problem, dict) else {}
    sentence = problem.get("detail") or f"{answer.url} answers {answer.status_code} {answer.reason_phrase}"
    request_id = str(problem.get("request_id") or answer.headers.get("x-request-id", ""))
    return InpaintError(str(sentence), answer.status_code, request_id)


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__
