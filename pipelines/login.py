"""Who asks a Kubeflow Pipelines server: a token, a file with one, cookies, or a login to Identity-Aware Proxy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GOOGLE_TOKEN_SECONDS = 45 * 60.0  # of the hour that Google's tokens are good for


class SubmitError(ValueError):
    """The server cannot be reached, refuses, or the run failed."""


@dataclass(frozen=True)
class Access:
    """Where the server is, and what to show it: a token, else a file with one, which a cluster keeps fresh; cookies.

    Where neither is given, ``client_id`` is the OAuth client of Google's Identity-Aware Proxy before it. kfp logs
    in to it, as the service account of this machine or, with an OAuth client for desktop programs (``other_client_id``
    and its secret), as whoever consents in a browser; it keeps that consent in ``~/.config/kfp/credentials.json``.
    """

    host: str
    namespace: str = ""  # of the user, where the server has several
    token: str = ""
    token_file: Path | None = None
    cookies: str = ""
    ca_cert: Path | None = None
    client_id: str = ""
    other_client_id: str = ""
    other_client_secret: str = ""
    proxy: str = ""  # address of an HTTP proxy on the way


def configuration(access: Access, host: str) -> Any:
    """A client's configuration (``kfp_server_api.Configuration``). Raises ``SubmitError`` for what cannot be used."""
    import kfp_server_api as api

    made = api.Configuration(host=host)
    made.retries = False  # a server that is down is told at once
    made.proxy = access.proxy or None
    if access.ca_cert:
        if not access.ca_cert.is_file():
            raise SubmitError(f"there is no file {access.ca_cert} for --ca-cert")
        made.ssl_ca_cert = str(access.ca_cert)
    if fresh := _fresh_token(access):
        made.refresh_api_key_hook = lambda configuration: configuration.api_key.update(authorization=fresh())
    if access.token or fresh:
        made.api_key["authorization"] = access.token
        made.api_key_prefix["authorization"] = "Bearer"
    return made


def _fresh_token(access: Access) -> Callable[[], str] | None:
    """What gives the token to send with each call, where it does not stay the same."""
    if access.token:
        return None
    if path := access.token_file:
        return lambda: _read(path)
    if bool(access.other_client_id) != bool(access.other_client_secret):
        raise SubmitError("a login in the browser needs both --other-client-id and --other-client-secret")
    if access.other_client_id and not access.client_id:
        raise SubmitError("--other-client-id logs in to Identity-Aware Proxy; give its --client-id as well")
    return _GoogleToken(access) if access.client_id else None


def _read(path: Path) -> str:
    """The token in a file, read anew for every call: a cluster replaces the file before the token runs out."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SubmitError(f"no token can be read from {path} ({error.strerror}); see --token-file") from None


class _GoogleToken:
    """A token for Identity-Aware Proxy, fetched again before it runs out: a training may take longer."""

    def __init__(self, access: Access) -> None:
        self._access, self._token, self._until = access, "", 0.0

    def __call__(self) -> str:
        if time.monotonic() >= self._until:
            self._token = self._fetch()
            self._until = time.monotonic() + _GOOGLE_TOKEN_SECONDS
        return self._token

    def _fetch(self) -> str:
        from google.auth.exceptions import GoogleAuthError
        from kfp.client import auth

        access, why = self._access, "there are no credentials of a service account"
        try:
            token, _ = auth.get_auth_token(
                access.client_id, access.other_client_id or None, access.other_client_secret or None
            )
        except (GoogleAuthError, OSError, ValueError) as error:  # requests raises OSErrors
            token, why = None, " ".join(str(error).split())
        if not token or token == "None":  # kfp's word for an answer without one
            raise SubmitError(
                f"Google gives no token for --client-id {access.client_id} ({why}); name a service account's key in "
                "GOOGLE_APPLICATION_CREDENTIALS, or give --other-client-id and --other-client-secret"
            )
        return str(token)
