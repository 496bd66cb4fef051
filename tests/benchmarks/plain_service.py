"""A service of the same network as one would write it in an afternoon: FastAPI, Pillow, torch in eager mode.

``python -m tests.benchmarks.plain_service ARCHITECTURE tests.benchmarks.plain_service:build_app --factory ...``
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File, Response
from PIL import Image

from components.inpainting.networks import build_generator


def build_app() -> FastAPI:
    app = FastAPI()
    generator = build_generator(os.environ["PLAIN_ARCHITECTURE"]).eval()

    @app.post("/inpaint")
    def inpaint(image: Annotated[bytes, File()], mask: Annotated[bytes, File()]) -> Response:
        picture = np.array(Image.open(io.BytesIO(image)).convert("RGB"))
        hole = np.asarray(Image.open(io.BytesIO(mask)).convert("L")) >= 128
        planes = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        holes = torch.from_numpy(hole)[None, None].float()
        with torch.no_grad():
            repaired = generator(planes * (1 - holes), holes) * holes + planes * (1 - holes)
        pixels = (repaired[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        answer = io.BytesIO()
        Image.fromarray(pixels).save(answer, "PNG")
        return Response(answer.getvalue(), media_type="image/png")

    return app


if __name__ == "__main__":
    os.environ["PLAIN_ARCHITECTURE"] = sys.argv.pop(1)
    uvicorn.main()
