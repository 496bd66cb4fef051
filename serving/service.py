"""The BentoML service around the endpoint: it starts, stops and describes it, and answers nothing itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import bentoml
from bentoml.validators import ContentType
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.app import Parts, build_app
from serving.auth import Keys
from serving.bodies import Asked
from serving.connections import guard_connections
from serving.logs import configure_logs
from serving.models import Models
from serving.observing import Record
from serving.options import Options
from serving.repair import open_files, repair
from serving.settings import MAX_TIMEOUT, ServingSettings

BENTO = Path(__file__).parent.parent
_LEFT_TO_BENTOML = "/schema.json"  # what BentoML's client reads


class Door:
    """ASGI application before BentoML's: all paths are the endpoint's, but for one.

    BentoML's own middleware would come first: it costs more than a small answer, and keeps some KB of every request
    until its timeout has passed.
    """

    endpoint: ASGIApp | None = None

    def __init__(self, app: ASGIApp) -> None:
        self._bentoml = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on one request."""
        left = scope["type"] != "http" or (scope["path"] == _LEFT_TO_BENTOML and scope["method"] == "GET")
        app = self._bentoml if left or Door.endpoint is None else Door.endpoint
        await app(scope, receive, send)


@bentoml.service(
    name="kintsugi",
    workers=1,
    traffic={"timeout": MAX_TIMEOUT + 30},  # ours comes first, and answers with a problem
    envs=[{"name": "BENTOML_CONFIG_OPTIONS", "value": "services.metrics.enabled=false"}],
)
class KintsugiService:
    """Repairs pictures with the models in the Bento, or with those that ``KINTSUGI_MODELS`` brings meanwhile."""

    def __init__(self) -> None:
        configure_logs()
        settings = ServingSettings()
        self._models = Models(BENTO, settings.models)
        keys = Keys(settings.api_keys.get_secret_value(), settings.api_keys_file)
        Door.endpoint = build_app(Parts(self._models, settings, keys))
        self._models.watch()

    @bentoml.api(route="/inpaint")  # type: ignore[untyped-decorator]
    def inpaint(
        self,
        image: Path,
        mask: Path = None,  # type: ignore[assignment]  # noqa: RUF013  # a union would hide the file from BentoML
        format: Literal["png", "webp", "jpeg", "same"] = "png",
        quality: int = 90,
        grow_mask: int = 0,
        feather: int = 0,
        output: Literal["image", "mask"] = "image",
    ) -> Annotated[Path, ContentType("image/png")]:
        """Repair a picture file; BentoML's client calls it, and over HTTP the endpoint answers in its place."""
        options = Options(format=format, quality=quality, grow_mask=grow_mask, feather=feather, output=output)
        asked = Asked(image.read_bytes(), None if mask is None else mask.read_bytes(), options)
        with self._models.use() as served:
            repaired = repair(open_files(asked, ServingSettings().max_pixels), served, Record("in-process"))
        suffix = repaired.media_type.removeprefix("image/")
        with tempfile.NamedTemporaryFile(suffix=f".{suffix}", delete=False) as file:
            file.write(repaired.content)
        return Path(file.name)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Stop watching for models."""
        self._models.close()


guard_connections(Door)  # BentoML starts uvicorn right after it has loaded this module, and lets nobody between
