from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import serving.http
from components.inpainting.export import export_onnx
from components.inpainting.images import Bytes, decode_image, encode_png
from components.inpainting.inpainter import wrap_generator
from components.inpainting.networks.residual_unet import ResidualUNet
from serving.admission import Admission
from serving.engine import Engine
from serving.service import app


@pytest.fixture(scope="module")
def generator() -> ResidualUNet:
    """A generator whose residual is not zero."""
    import torch

    torch.manual_seed(0)
    generator = ResidualUNet().eval()
    torch.nn.init.normal_(generator.refiner.unet.head.weight, std=0.02)
    return generator


@pytest.fixture(scope="module")
def client(generator: ResidualUNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("model")
    export_onnx(generator, folder / "generator.onnx")
    provenance = {"version": "3", "digest": "d" * 64, "run_id": "r", "stride": generator.stride}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    app.state.engine, app.state.admission = Engine.open(folder), Admission()
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def pair(photographs: list[Bytes]) -> tuple[Bytes, Bytes]:
    image = photographs[1]
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[50:80, 100:160] = mask[200, 20:400] = 1
    return image, mask


def post(client: TestClient, image: bytes | None, mask: bytes | None, **more: bytes):
    files = {"image": image, "mask": mask, **more}
    return client.post("/inpaint", files={n: (f"{n}.png", c) for n, c in files.items() if c is not None})


def test_repairs_as_the_trainers_network_does(
    client: TestClient, generator: ResidualUNet, pair: tuple[Bytes, Bytes]
) -> None:
    image, mask = pair
    answer = post(client, encode_png(image), encode_png(mask * np.uint8(255)))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-model-version"] == "3"
    repaired = decode_image(answer.content)
    assert np.array_equal(repaired[mask == 0], image[mask == 0])
    expected = wrap_generator(generator)(image, mask)
    assert np.abs(repaired.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats_are_read(kind: str, client: TestClient, pair: tuple[Bytes, Bytes]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pair[0]).save(buffer, kind)
    answer = post(client, buffer.getvalue(), encode_png(pair[1] * np.uint8(255)))
    mask = pair[1] == 0
    assert np.array_equal(decode_image(answer.content)[mask], decode_image(buffer.getvalue())[mask])


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image", "mask", "status", "detail"),
    [
        ("png", None, 400, "The file 'mask' is missing"),
        (None, "png", 400, "The file 'image' is missing"),
        ("png", "other size", 422, "mask is 4x4 pixels but the picture is 8x8"),
        ("garbage", "png", 415, "image: this is no picture"),
        ("png", "garbage", 415, "mask: this is no picture"),
        ("gif", "png", 415, "PNG, JPEG, WEBP"),
        ("truncated", "png", 400, "image: the picture is damaged"),
        ("empty", "png", 415, "image: this is no picture"),
    ],
)
def test_bad_input_is_a_problem_with_advice(
    image: str | None, mask: str | None, status: int, detail: str, client: TestClient
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    parts = {
        "png": encode_png(noise), "other size": encode_png(noise[:4, :4]), "garbage": b"hello", "gif": gif(),
        "truncated": encode_png(noise)[:-60], "empty": b"", None: None,
    }  # fmt: skip
    answer = post(client, parts[image], parts[mask])
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert detail in answer.json()["detail"]
    assert answer.json()["status"] == status


def test_what_is_no_form_is_refused(client: TestClient) -> None:
    assert client.post("/inpaint", content=b"x").status_code == 415
    assert client.post("/inpaint", data={"image": "http://127.0.0.1/"}).status_code == 415
    broken = client.post("/inpaint", content=b"x", headers={"content-type": "multipart/form-data; boundary=b"})
    assert broken.status_code == 400
    text = client.post("/inpaint", files={"image": (None, "http://127.0.0.1:1/x.png"), "mask": (None, "no")})
    assert text.status_code == 400
    assert "'image' is text, not a file; with curl, write -F image=@image.png" in text.json()["detail"]
    many = post(client, b"1", b"2", other=b"3")
    assert many.status_code == 400
    for answer in (client.get("/inpaint"), client.post("/inpain")):
        assert answer.status_code in (404, 405)
        assert "is not served" in answer.json()["detail"]
    assert "curl -F image=@photo.png" in client.get("/").text


def test_large_bodies_are_refused_with_or_without_their_length(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.http, "MAX_BODY", 1000)
    assert post(client, b"x" * 2000, b"").status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(50):
            yield b"x" * 100

    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert client.post("/inpaint", content=chunks(), headers=headers).status_code == 413
    lying = client.post("/inpaint", content=b"--b--", headers={**headers, "content-length": "many"})
    assert lying.status_code == 400


def test_the_model_says_what_it_is(client: TestClient) -> None:
    assert client.get("/model").json()["version"] == "3"
