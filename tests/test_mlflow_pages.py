"""MLflow's pages in Chromium: which model repairs better, and why it was admitted or refused."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from components.bentos import free_port
from components.config import GatePolicy, RunConfig, Settings, TrainConfig
from components.gate import gate
from components.inpainting.scores import (
    CANDIDATE,
    CHARTS,
    Evaluation,
)
from components.manifest import Manifest, complete_folder
from components.tracking import open_run, start_run
from tests.judged import Case
from tests.mlflow_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CASES = {"Admitted: every rule holds.": 0.95, "Refused: It does not certainly": 0.951, "Refused: SSIM is 0.5": 0.5}
"""How a verdict begins, and the SSIM of the model that it is on; the first is champion when the others are judged."""
DATASET = Manifest(kind="dataset", digest="d" * 64, code_version="", facts={"source": "sample"})
COLUMNS = [
    "Run Name", "Created", "verdict", "test/ssim", "champion/ssim", "biharmonic/ssim", "test/hole_mse",
    "champion/hole_mse", "hp.model", "hp.steps", "Models",
]  # fmt: skip
SECONDS = 20_000  # of patience with a page, in milliseconds


@dataclass
class Site:
    """A server with three judged runs, oldest first, and the link that ``kintsugi ui`` printed."""

    url: str
    link: str
    run_ids: list[str]


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("pages")
    settings = Settings(home=home / "state", MLFLOW_TRACKING_URI="")
    run_ids = [judge(home / str(number), ssim, number > 0, settings) for number, ssim in enumerate(CASES.values())]
    with start_run(settings, RunConfig(experiment="other"), TrainConfig(), DATASET):
        pass
    port = str(free_port())
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "KINTSUGI_"))}
    environment |= {"KINTSUGI_HOME": str(settings.state), "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "pipelines.cli", "ui", "--port", port]
    with serving(command, url := f"http://127.0.0.1:{port}", home / "log", environment):
        (link,) = re.findall(r"MLflow comes up on (\S+)", (home / "log").read_text())
        yield Site(url, link, run_ids)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page so large that MLflow's tables draw all of themselves."""
    context = browser.new_context(viewport={"width": 2600, "height": 1600})
    context.set_default_timeout(SECONDS)
    yield context.new_page()
    context.close()


def judge(folder: Path, ssim: float, has_champion: bool, settings: Settings) -> str:
    """A run as a training, an evaluation and the gate leave it, without any; returns its id."""
    with start_run(settings, RunConfig(), TrainConfig(steps=int(1000 * ssim)), DATASET) as run:
        pass
    evaluation = evaluated(run.id, ssim, has_champion)
    with complete_folder(folder / "evaluation", "evaluation") as draft:
        (draft.path / "scores.json").write_text(evaluation.model_dump_json())
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(draft.path / "repairs.png")
        (draft.path / "charts").mkdir()
        for name in CHARTS:
            (draft.path / "charts" / f"{name}.svg").write_text("<svg/>")
    names = {CANDIDATE: "test"}
    scores = {names.get(name, name): evaluation.methods[name].overall for name in evaluation.in_tables}
    for metric in ("ssim", "hole_mse"):
        values = {f"{name}/{metric}": getattr(score, metric) for name, score in scores.items()}
        open_run(settings, run.id).log_metrics(values)
    policy = GatePolicy(min_ssim=0.6, max_mse=0.1)
    gate(policy, folder / "evaluation", folder / "decision", folder / "report.html", settings)
    return run.id


def evaluated(run_id: str, ssim: float, has_champion: bool) -> Evaluation:
    champion = (0.95, 0.01) if has_champion else None
    return Case(model=(ssim, 0.01), champion=champion, gain=0.01).evaluation().model_copy(update={"run_id": run_id})


def test_the_link_of_kintsugi_ui_opens_a_table_of_every_verdict_and_score(page: Page, site: Site) -> None:
    assert site.link.startswith(f"{site.url}/#/experiments/1/runs?")
    page.goto(site.link)
    cell(page, 2, "metrics.`test/ssim`").wait_for()
    for row, (verdict, ssim) in enumerate(reversed(CASES.items())):
        expect(cell(page, row, "tags.`verdict`")).to_contain_text(verdict)
        expect(cell(page, row, "metrics.`test/ssim`")).to_have_text(str(ssim))
        expect(cell(page, row, "params.`hp.steps`")).to_have_text(str(int(1000 * ssim)))
    expect(cell(page, 0, "metrics.`champion/ssim`")).to_have_text("0.95")
    expect(cell(page, 2, "metrics.`champion/ssim`")).to_have_text("-")
    assert headers(page) == [*COLUMNS, "Duration"]
    assert "Sessions" not in page.locator("body").inner_text()  # of the menu for language models


def test_two_experiments_side_by_side_have_the_columns_too(page: Page, site: Site) -> None:
    both = quote(json.dumps(["1", "2"]))
    page.goto(f"{site.url}/#/compare-experiments/s?experiments={both}&viewStateShareKey=kintsugi")
    page.locator(".ag-header-cell", has_text="verdict").wait_for()
    assert set(COLUMNS) <= set(headers(page))


def test_a_runs_page_says_why_it_was_refused(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/#/experiments/1/runs/{site.run_ids[1]}?workflowType=machine_learning")
    page.get_by_text("Show more").click()
    body = page.locator("body")
    expect(body).to_contain_text("SSIM 0.9510 (champion 0.9500, biharmonic 0.9400).")
    expect(body).to_contain_text("✗ It does not certainly repair better than the champion, version 7")
    expect(page.locator("td strong", has_text="0.9510")).to_have_count(2)  # under boxes, and overall
    expect(page.get_by_role("heading", name=re.compile(r"residual_unet 951 steps"))).to_be_visible()


def test_three_runs_are_compared_by_their_scores(page: Page, site: Site) -> None:
    runs, query = quote(json.dumps(site.run_ids)), "workflowType=machine_learning"
    page.goto(f"{site.url}/#/compare-runs?runs={runs}&experiments={quote(json.dumps(['1']))}&{query}")
    page.get_by_role("link", name="test/ssim", exact=True).wait_for()
    names = page.locator('a[href^="#/metric?"]').all_inner_texts()
    numbers = page.get_by_role("grid").last.inner_text().split()
    rows = {name: numbers[3 * i : 3 * i + 3] for i, name in enumerate(names)}
    assert rows["test/ssim"] == [str(ssim) for ssim in CASES.values()]
    assert rows["champion/ssim"] == ["NaN", "0.95", "0.95"]  # the first had none to beat
    for verdict in CASES:
        expect(page.get_by_role("cell").filter(has_text=verdict)).to_be_visible()


def cell(page: Page, row: int, column: str) -> Locator:
    return page.locator(f'.ag-row[row-index="{row}"] [col-id="{column}"]')


def headers(page: Page) -> list[str]:
    """What heads the columns of the table of runs, from left to right."""
    cells = page.locator(".ag-header-cell").all()
    places = [(box["x"], cell.inner_text()) for cell in cells if (box := cell.bounding_box())]
    return [text for _, text in sorted(places) if text]
