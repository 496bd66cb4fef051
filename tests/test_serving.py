from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from starlette.testclient import TestClient

from components.inpainting.holes import grow
from components.inpainting.images import Bytes, decode_image, decode_mask, encode_png
from serving.answers import prefers_json
from tests.served import client_of, make_parts, post, white, write_model

Pair = tuple[Bytes, Bytes]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server whose model fills holes with grey, and whose blind model takes red for damage."""
    folder = tmp_path_factory.mktemp("bento")
    write_model(folder / "model", "3")
    with client_of(make_parts(folder, blind=True)) as client:
        yield client


@pytest.fixture
def pair(photographs: list[Bytes]) -> Pair:
    image = photographs[1]
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[50:80, 100:160] = mask[200, 20:400] = 1
    return image, mask


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_the_answer_names_model_mask_and_stages(client: TestClient, pair: Pair) -> None:
    answer = post(client, encode_png(pair[0]), white(pair[1]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-model-version"] == "3"
    assert answer.headers["x-model-digest"] == "0003" * 16
    assert answer.headers["x-run-id"] == "run-3"
    assert answer.headers["x-mask-source"] == "given"
    stages = [part.strip().partition(";dur=") for part in answer.headers["server-timing"].split(",")]
    assert [name for name, _, _ in stages] == ["decode", "queue", "repair", "encode"]
    assert all(float(milliseconds) >= 0 for _, _, milliseconds in stages)
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize(("grown", "feather"), [(0, 0), (5, 0), (5, 3), (2, 32)])
def test_known_pixels_come_back_bit_for_bit(
    kind: str, grown: int, feather: int, client: TestClient, pair: Pair
) -> None:
    image, mask = pair
    answer = post(client, encode_png(image), white(mask), format=kind, grow_mask=grown, feather=feather)
    assert answer.headers["content-type"] == f"image/{kind}"
    repaired, hole = decode_image(answer.content), grow(mask, grown)
    assert np.array_equal(repaired[hole == 0], image[hole == 0])
    assert (repaired[mask == 1] == 128).all()
    assert np.array_equal((repaired == 128).all(axis=2), hole == 1) == (feather == 0)


def test_jpegs_have_the_quality_that_is_asked_for(client: TestClient, pair: Pair) -> None:
    sizes = []
    for quality in (20, 90, 100):
        answer = post(client, encode_png(pair[0]), white(pair[1]), format="jpeg", quality=quality)
        assert answer.headers["content-type"] == "image/jpeg"
        assert np.abs(decode_image(answer.content)[pair[1] == 0] - pair[0][pair[1] == 0].astype(int)).mean() < 9
        sizes.append(len(answer.content))
    assert sizes == sorted(sizes) and sizes[0] * 3 < sizes[2]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_same_is_the_format_of_the_picture(kind: str, client: TestClient, pair: Pair) -> None:
    content = encoded(Image.fromarray(pair[0]), kind)
    answer = post(client, content, white(pair[1]), format="same")
    assert opened(answer.content).format == kind
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    lossless = post(client, content, white(pair[1]))
    assert np.array_equal(decode_image(lossless.content)[pair[1] == 0], decode_image(content)[pair[1] == 0])


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_alpha_is_kept_under_a_mask_that_was_sent(kind: str, client: TestClient, pair: Pair) -> None:
    alpha = np.broadcast_to(np.linspace(0, 255, pair[0].shape[1]).astype(np.uint8), pair[0].shape[:2])
    picture = encode_png(np.dstack([pair[0], alpha]))
    answer = np.asarray(opened(post(client, picture, white(pair[1]), format=kind).content))
    assert np.array_equal(answer[..., 3], alpha)
    assert np.array_equal(answer[pair[1] == 0][:, :3], pair[0][pair[1] == 0])
    jpeg = decode_image(post(client, picture, white(pair[1]), format="jpeg", quality=100).content)
    assert (jpeg[:, :5] > 245).all()  # what is transparent shows white


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_without_a_mask_what_is_transparent_is_repaired_and_opaque_then(
    kind: str, client: TestClient, pair: Pair
) -> None:
    image, mask = pair
    alpha = np.where(mask == 1, 127, 200).astype(np.uint8)
    picture = encoded(Image.fromarray(np.dstack([image, alpha])), kind, lossless=True, exact=True)
    answer = post(client, picture)
    assert answer.headers["x-mask-source"] == "alpha"
    repaired = np.asarray(opened(answer.content))
    assert np.array_equal(repaired[mask == 0], np.dstack([image, alpha])[mask == 0])
    assert (repaired[mask == 1] == [128, 128, 128, 255]).all()


def test_without_mask_and_alpha_damage_is_found(client: TestClient, pair: Pair) -> None:
    image, mask = pair
    damaged = np.where(mask[..., None] == 1, np.array([255, 0, 0], np.uint8), image)
    opaque = np.dstack([damaged, np.full(mask.shape, 255, np.uint8)])
    for picture in (damaged, opaque):
        answer = post(client, encode_png(picture))
        assert answer.headers["x-mask-source"] == "found"
        assert answer.headers["x-model-version"] == "blind"
        repaired = decode_image(answer.content)
        assert np.array_equal(repaired[mask == 0], image[mask == 0])
        assert (repaired[mask == 1] == image[mask == 0].mean(axis=0).astype(np.uint8)).all()
    found = post(client, encode_png(damaged), output="mask", grow_mask=2)
    assert found.headers["content-type"] == "image/png"
    assert np.array_equal(decode_mask(found.content), grow(mask, 2))
    sound = post(client, encode_png(image))
    assert np.array_equal(decode_image(sound.content), image)


def test_a_server_without_a_blind_model_says_what_to_do(tmp_path: Path, pair: Pair) -> None:
    write_model(tmp_path / "model")
    with client_of(make_parts(tmp_path)) as client:
        answer = post(client, encode_png(pair[0]))
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("Send a mask, white where to repair")
        assert client.get("/model").json()["blind"] is False


def test_pictures_are_turned_upright_once(client: TestClient, pair: Pair) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(np.rot90(pair[0])), "PNG", exif=exif)
    answer = post(client, content, white(pair[1]))
    repaired = opened(answer.content)
    assert repaired.getexif().get(0x0112) is None
    assert np.array_equal(np.asarray(repaired)[pair[1] == 0], pair[0][pair[1] == 0])


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_colour_profiles_are_kept_where_they_are_of_rgb(kind: str, client: TestClient, pair: Pair) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(Image.fromarray(pair[0]), "PNG", icc_profile=profile)
    assert opened(post(client, content, white(pair[1]), format=kind).content).info["icc_profile"] == profile
    grey = profile[:16] + b"GRAY" + profile[20:]
    content = encoded(Image.fromarray(pair[0]).convert("L"), "JPEG", icc_profile=grey)
    assert "icc_profile" not in opened(post(client, content, white(pair[1]), format=kind).content).info


def test_json_goes_in_and_comes_out(client: TestClient, pair: Pair) -> None:
    image, mask = encode_png(pair[0]), white(pair[1])
    body = {"image": base64.b64encode(image).decode(), "mask": base64.b64encode(mask).decode(), "grow_mask": 1}
    picture = client.post("/inpaint", json=body)
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == post(client, image, mask, grow_mask=1).content
    answer = client.post("/inpaint", json=body, headers={"accept": "application/json", "x-request-id": "mine-1"})
    details = answer.json()
    assert base64.b64decode(details["image"]) == picture.content
    assert np.array_equal(decode_mask(base64.b64decode(details["mask"])), grow(pair[1], 1))
    assert (details["format"], details["width"], details["height"]) == ("png", 451, 300)
    assert details["mask_source"] == "given"
    assert details["model"] == {"name": "kintsugi", "version": "3", "digest": "0003" * 16, "run_id": "run-3"}
    assert set(details["timing_ms"]) == {"decode", "queue", "repair", "encode"}
    assert details["request_id"] == answer.headers["x-request-id"] == "mine-1"
    only_mask = client.post("/inpaint", json=body | {"output": "mask"}, headers={"accept": "application/json"}).json()
    assert only_mask["image"] is None
    assert only_mask["mask"] == details["mask"]


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        ("", False), ("*/*", False), ("application/json", True), ("image/png", False), ("text/html", False),
        ("application/json, text/plain, */*", True), ("image/*, application/json;q=0.5", False),
        ("image/webp;q=0.2, Application/JSON ; q=0.3", True), ("application/json;q=0", False),
        ("application/json;q=no", False), ("application/json;q=²", False), (",;,;q=", False),
    ],
)  # fmt: skip
def test_json_is_answered_to_those_who_like_it_best(accept: str, json_wanted: bool) -> None:
    assert prefers_json(accept) == json_wanted


def test_the_model_says_what_it_is(client: TestClient) -> None:
    served = client.get("/model").json()
    assert {name: served[name] for name in ("name", "version", "run_id", "architecture", "blind")} == {
        "name": "kintsugi", "version": "3", "run_id": "run-3", "architecture": "constant", "blind": True,
    }  # fmt: skip
    assert served["scores"] == {"ssim": 0.9}
    assert served["blind_model"]["version"] == "blind"
    assert served["last_refused"] is None
    assert served["limits"] == {"max_body_bytes": 64 << 20, "max_pixels": 50_000_000}
    assert set(served["engine"]) >= {"runtime", "precision", "threads"}


def test_request_ids_are_taken_over_if_sane(client: TestClient) -> None:
    for sane in ("a", "A-1._z", "x" * 64):
        assert client.get("/model", headers={"x-request-id": sane}).headers["x-request-id"] == sane
    for strange in ("", "x" * 65, "two words", "a,b", "<script>"):
        answer = client.get("/nowhere", headers={"x-request-id": strange})
        assert answer.headers["x-request-id"] == answer.json()["request_id"] != strange


def test_every_request_is_logged_once_and_pictures_are_not(
    client: TestClient, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kintsugi"):
        answer = post(client, encode_png(pair[0]), white(pair[1]))
        client.get("/livez")
    (line,) = [record.__dict__ for record in caplog.records]
    assert (line["message"], line["path"], line["status"]) == ("request", "/inpaint", 200)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["width"], line["height"], line["mask_source"]) == (451, 300, "given")
    assert line["bytes_out"] == len(answer.content) and line["bytes_in"] > len(encode_png(pair[0]))
    assert set(line["stages_ms"]) == {"decode", "queue", "repair", "encode"}
    assert len(str(line)) < 3000


def test_prometheus_sees_requests_stages_pictures_and_the_model(client: TestClient, pair: Pair) -> None:
    post(client, encode_png(pair[0]), white(pair[1]))
    for number in range(20):
        client.get(f"/nowhere/{number}")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}
    assert values['kintsugi_requests_total{path="other",status="404"}'] >= 20
    assert values['kintsugi_requests_total{path="/inpaint",status="200"}'] >= 1
    assert values['kintsugi_stage_seconds_count{stage="repair"}'] >= 1
    assert values["kintsugi_picture_megapixels_count"] >= 1
    assert values["kintsugi_queue_depth"] == 0
    assert values["kintsugi_model_refused_total"] == 0
    assert any(name.startswith('kintsugi_model_info{digest="0003') for name in values)
    assert not any("nowhere" in name for name in values)
    assert values["process_resident_memory_bytes"] > 0


def test_keys_are_asked_for_where_there_are_some(tmp_path: Path, pair: Pair) -> None:
    write_model(tmp_path / "model")
    secret = tmp_path / "keys"
    secret.write_text("third\nfourth\n")
    parts = make_parts(tmp_path, api_keys="first, second", api_keys_file=secret)
    with client_of(parts) as client:

        def status(**headers: str) -> int:
            answers = [client.post("/inpaint", content=b"", headers=headers), client.get("/model", headers=headers)]
            assert [answer.status_code == 401 for answer in answers] in ([True, True], [False, False])
            return int(answers[1].status_code)

        for key in ("first", "second", "third", "fourth"):
            assert status(**{"X-API-Key": key}) == 200
            assert status(Authorization=f"bearer {key}") == 200
        for wrong in ("firs", "first,", "fifth", ""):
            assert status(**{"X-API-Key": wrong}) == 401
        assert status(Authorization="Basic first") == status() == 401
        refused = client.post("/inpaint", content=b"")
        assert refused.headers["www-authenticate"] == 'Bearer realm="kintsugi"'
        assert "X-API-Key" in refused.json()["detail"]
        secret.write_text("fifth")
        assert status(**{"X-API-Key": "fifth"}) == 200
        assert status(**{"X-API-Key": "third"}) == 401
        secret.unlink()
        assert status(**{"X-API-Key": "fifth"}) == 401
        assert status(**{"X-API-Key": "first"}) == 200
        for path in ("/", "/livez", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200
        assert client.get("/openapi.json").json()["paths"]["/model"]["get"]["security"]


def test_other_origins_may_call_only_when_they_are_named(tmp_path: Path, client: TestClient) -> None:
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in client.get("/model", headers=preflight).headers
    assert client.options("/inpaint", headers=preflight).status_code == 405
    write_model(tmp_path / "model")
    with client_of(make_parts(tmp_path, cors_origins="https://a.example,https://b.example")) as opened_client:
        allowed = opened_client.options("/inpaint", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        answer = opened_client.get("/model", headers=preflight)
        assert "X-Model-Version" in answer.headers["access-control-expose-headers"]
        other = opened_client.get("/model", headers={"origin": "https://c.example"})
        assert "access-control-allow-origin" not in other.headers
