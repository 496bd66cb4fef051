from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from serving import page


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=page.routes()))


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/style.css", "/web/samples/chelsea.jpg"])
def test_files_come_with_a_strict_policy_and_an_etag(path: str, client: TestClient) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(path).headers["content-length"] == str(len(answer.content))


def test_scripts_and_styles_are_sent_as_such(client: TestClient) -> None:
    assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert "javascript" in client.get("/web/app.js").headers["content-type"]
    assert client.get("/web/style.css").headers["content-type"].startswith("text/css")


@pytest.mark.parametrize("path", ["/web/", "/web/none.js", "/web/../page.py", "/web/%2e%2e/page.py", "/web/samples"])
def test_nothing_else_is_served(path: str, client: TestClient) -> None:
    assert client.get(path).status_code == 404


def test_files_can_only_be_read(client: TestClient) -> None:
    assert client.post("/web/app.js").status_code == 405
    assert client.delete("/").status_code == 405


def test_all_that_the_page_names_is_there_and_nothing_is_inline(client: TestClient) -> None:
    html = client.get("/").text
    names = re.findall(r'(?:src|href)="(?!#)([^"]+)"', html)
    assert len(names) > 8
    assert all(client.get(f"/{name}").status_code == 200 for name in names)
    assert not re.search(r'<script>|<style|style="|\son\w+="|https?://', html)


def test_samples_are_small_and_say_where_they_are_from(client: TestClient) -> None:
    source = client.get("/web/samples/README.txt").text
    samples = sorted((page.WEB / "samples").glob("*.jpg"))
    assert len(samples) == 4
    for sample in samples:
        assert sample.stat().st_size < 80_000
        assert sample.name in source
