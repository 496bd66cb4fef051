"""What operators set: environment variables that begin with ``KINTSUGI_``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.inpainting.images import MAX_PIXELS

MAX_TIMEOUT = 90
"""Seconds; BentoML's own deadline, which answers without advice, comes after it."""


class ServingSettings(BaseSettings):
    """Settings of the server, each from the environment variable of its name in capitals after ``KINTSUGI_``."""

    model_config = SettingsConfigDict(env_prefix="KINTSUGI_", extra="ignore", frozen=True, env_ignore_empty=True)

    api_keys: SecretStr = Field(SecretStr(""), description="keys that may call, separated by commas or blanks")
    api_keys_file: Path | None = Field(None, description="a file of such keys, read again when it changes")
    cors_origins: str = Field("", description="origins whose pages may call, separated by commas; * for all")
    models: Path | None = Field(None, description="a folder of models that is watched, see docs/serving.md")
    max_body_bytes: int = Field(64 << 20, ge=1024, description="largest request")
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=MAX_PIXELS, description="largest picture")
    timeout_seconds: float = Field(60, gt=0, le=MAX_TIMEOUT, description="after which a request is answered with 504")

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may call."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
