"""Who may call: API keys from the environment or from a mounted secret, compared in constant time."""

from __future__ import annotations

import hmac
import logging
import re
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers

from serving.problems import Problem

_LOG = logging.getLogger("kintsugi")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="kintsugi"'}


class KeysError(ValueError):
    """The file of keys cannot be read."""


class Keys:
    """The keys that may call; without any, and without a file of them, everybody may.

    The file is read again whenever it changes. One that is empty, or vanished since, lets nobody in: keys
    that were withdrawn must not go on working. Raises ``KeysError`` when it is not there from the start.
    """

    def __init__(self, keys: str = "", file: Path | None = None) -> None:
        self._fixed, self._file = _digests(keys), file
        self._read: frozenset[bytes] = frozenset()
        self._seen: tuple[int, int, int] | None = None
        if file is not None and not file.is_file():
            raise KeysError(f"KINTSUGI_API_KEYS_FILE names {file}, which is no file; mount the secret there")

    @property
    def required(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._fixed) or self._file is not None

    def check(self, headers: Headers) -> None:
        """Raise ``Problem`` (401) where a key is needed and neither ``X-API-Key`` nor a bearer token is one."""
        if not self.required:
            return
        given = headers.get("x-api-key") or _bearer(headers.get("authorization", ""))
        digest = sha256(given.encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._fixed | self._from_file()]
        if not given or not any(matches):
            what = "The API key is not known" if given else "An API key is needed"
            raise Problem(401, f"{what}; send one as X-API-Key or as Authorization: Bearer.", _CHALLENGE)

    def _from_file(self) -> frozenset[bytes]:
        if self._file is None:
            return self._read
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                self._read, self._seen = _digests(self._file.read_text()), seen
        except (OSError, UnicodeDecodeError) as error:
            _LOG.error("the file of API keys cannot be read", extra={"error": str(error)})
            self._read, self._seen = frozenset(), None
        return self._read


def _digests(keys: str) -> frozenset[bytes]:
    return frozenset(sha256(key.encode()).digest() for key in re.split(r"[,\s]+", keys) if key)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
