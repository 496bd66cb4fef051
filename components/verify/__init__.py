"""The verify step: start the Bento as users will, ask it for repairs, compare with the trainer's own."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from components.bentos import BANNED, import_bento, run_server
from components.config import ServeConfig, Settings
from components.inpainting.tolerance import COARSE_SSIM, MIN_AGREEMENT
from components.manifest import read_json, read_manifest, write_file
from components.progress import explain, say, step, track
from components.report import render
from components.tracking import Registry, open_run
from components.verify.asking import BRIGHTER, Expected, Golden, Outcome, ask


@step("verify")
def verify(config: ServeConfig, bento: Path, report: Path, settings: Settings) -> bool:
    """Whether the Bento's own server repairs every golden picture as the trainer's network did, however it is asked.

    Under a mask a hole may differ by the engine's tolerance in grey levels, a known pixel not at all; without one the
    found holes and the repair may differ by ``MIN_AGREEMENT`` and ``COARSE_SSIM``. The registered version is tagged
    with the answer. ``report`` becomes a page (HTML) of every picture, which also goes to the version's run, and is
    written before anything is raised.
    Raises ``ServiceError`` when the server does not come up, or loads torch, kfp or mlflow, and ``InpaintError`` when
    it refuses a request.
    """
    facts, provenance = read_manifest(bento, "bento").facts, read_json(bento / "provenance.json")
    expected = Expected(facts["tolerance"], str(provenance["version"]), provenance["digest"])
    outcome, registry = Outcome(Golden.read(bento / "golden")), Registry(settings, config.model_name)
    run = open_run(settings, registry.get(facts["version"]).run_id)
    try:
        _ask_all(bento, facts["tag"], expected, outcome)
    except Exception as error:
        outcome.stopped = explain(error)
        raise
    finally:
        write_file(report, _page(facts["tag"], expected, outcome))
        run.log_page(report, "bento/verification.html")  # Kubeflow keeps no page of a task that fails
    for sentence in outcome.wrong[:5]:
        say(sentence)
    say(f"{facts['tag']} answered {len(outcome.cases)} golden pictures, sent as a form and as JSON: "
        + ("verified" if outcome.verified else "not verified"))  # fmt: skip
    registry.verified(facts["version"], facts["tag"], outcome.verified)
    return outcome.verified


def _ask_all(bento: Path, tag: str, expected: Expected, outcome: Outcome) -> None:
    """Serve the Bento and ask it for every case; ``outcome`` keeps what was learnt, however far that gets."""
    with tempfile.TemporaryDirectory(prefix="kintsugi-verify-") as store:
        import_bento(bento / "kintsugi.bento", Path(store))
        begun = time.monotonic()
        with run_server(tag, Path(store)) as server:
            outcome.seconds_to_start = time.monotonic() - begun
            for case in track(outcome.cases, "verify", len(outcome.cases)):
                outcome.answers.append(ask(server.url, case, expected))
            server.check_loaded()
            outcome.loads_checked = True


def _page(tag: str, expected: Expected, outcome: Outcome) -> str:
    return render(
        "verification.html",
        title=f"Does {tag} repair as it was trained, when it is served?",
        tag=tag,
        expected=expected,
        outcome=outcome,
        answers=sorted(outcome.answers, key=lambda answer: not answer.problems),
        banned=sorted(BANNED),
        min_agreement=MIN_AGREEMENT,
        min_ssim=COARSE_SSIM,
        brighter=BRIGHTER,
    )
