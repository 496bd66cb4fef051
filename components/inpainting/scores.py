"""What the steps say of a model: its scores beside those of other methods, and the gate's decision."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

DAMAGED, BIHARMONIC, CANDIDATE, CHAMPION = "damaged", "biharmonic", "candidate", "champion"
PAPER = "context_encoder"
OVERALL = "overall"

CHARTS = {
    "families": "PSNR gained per mask family, with paired 95 % intervals",
    "coverage": "PSNR against the share of the picture that is damaged",
    "training": "How the training went",
}
"""The charts of an evaluation, ``charts/<name>.svg`` in its folder, with their captions."""

LABELS = {
    DAMAGED: "doing nothing",
    "mean": "mean colour",
    "telea": "Telea",
    "navier_stokes": "Navier-Stokes",
    "harmonic": "harmonic",
    BIHARMONIC: "biharmonic",
    "texture_synthesis": "texture synthesis (Efros-Leung)",
    "exemplar": "exemplar (Criminisi)",
    PAPER: "context encoder (the paper)",
    CHAMPION: "champion",
    CANDIDATE: "this model",
}
"""What people call the methods, in the order of their tables."""

CLASSICAL = tuple(name for name in LABELS if name not in (DAMAGED, PAPER, CHAMPION, CANDIDATE))
"""The methods that learn nothing."""

SHOWN = (DAMAGED, BIHARMONIC, PAPER, CHAMPION, CANDIDATE)
"""The methods of which every family and slice is shown. Galleries show them in this order, tables in the reverse."""


HEADLINES = ("ssim", "psnr", "hole_mse", "sharpness", "gmsd", "mask_f1", "mask_iou")
"""The scores that MLflow and Kubeflow show as metrics; all of them are in ``scores.json`` and the table of pictures."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A score; what was not measured, or is no finite number, is ``null`` in JSON, which knows no other word for it."""


class Score(_Frozen):
    """Means over test pictures."""

    ssim: Number  # composited picture (of a blind model the whole output), scikit-image's definition, [-1, 1]
    psnr: Number  # composited picture, dB
    hole_mse: Number  # inside the hole, pixels in [0, 1]
    mse: Number = math.nan  # composited picture, pixels in [0, 1]
    l1: Number = math.nan
    hole_ssim: Number = math.nan  # of the windows around hole pixels
    hole_psnr: Number = math.nan  # inside the hole, dB
    hole_l1: Number = math.nan  # inside the hole, pixels in [0, 1]
    sharpness: Number = math.nan  # detail of the repair beside the truth's; 1: as sharp
    gmsd: Number = math.nan  # perceptual proxy of the composited picture, 0 is perfect
    mask_f1: Number = math.nan  # of a blind model: how well it finds the damage, [0, 1]
    mask_iou: Number = math.nan

    @property
    def known(self) -> dict[str, float]:
        """The scores that there are, by name: what could not be measured is left out."""
        return {name: value for name, value in self if math.isfinite(value)}

    @property
    def headline(self) -> dict[str, float]:
        """The scores of ``HEADLINES`` that there are, by name."""
        return {name: value for name, value in self.known.items() if name in HEADLINES}


UNSCORED = Score(ssim=math.nan, psnr=math.nan, hole_mse=math.nan)


class Interval(_Frozen):
    """A mean over test pictures and the bounds between which it lies with 95 % confidence.

    The bounds are NaN where all pictures are of one photograph, which says nothing of others.
    """

    mean: Number
    low: Number
    high: Number

    @property
    def known(self) -> bool:
        """Whether there are bounds."""
        return math.isfinite(self.low) and math.isfinite(self.high)


class MethodScores(_Frozen):
    """One method's scores: per mask family, and over all pictures and families.

    ``intervals`` holds 95 % intervals of ``ssim``, ``psnr`` and ``hole_mse`` by family or ``"overall"``.
    """

    families: dict[str, Score]
    overall: Score
    intervals: dict[str, dict[str, Interval]] = {}


class Beside(_Frozen):
    """One method in the table of all methods: its scores on the pictures that all repaired, and its time."""

    score: Score
    seconds: Number  # per picture, on the machine that evaluated; NaN for doing nothing


class Slice(_Frozen):
    """Scores of the shown methods on some of the pictures: one mask family, coverage bin and class."""

    family: str
    coverage: str  # "10-20 %" of the picture
    class_name: str  # "" where pictures have no classes
    num_images: int
    methods: dict[str, Score]

    @property
    def name(self) -> str:
        """What people call it, as in "box, 10-20 %, cat"."""
        return ", ".join(filter(None, (self.family, self.coverage, self.class_name)))


class Exported(_Frozen):
    """What serving the model costs: the exported model on a CPU, one picture of the test's size at a time."""

    megabytes: float
    milliseconds: float  # median over ``num_pictures``, ONNX Runtime on ``num_threads``
    num_pictures: int
    num_threads: int
    image_size: int  # side of the pictures in pixels


Differences = dict[str, dict[str, dict[str, Interval]]]
"""This model less another, paired: by method, then mask family or ``"overall"``, then metric."""


class Evaluation(_Frozen):
    """Scores of all methods on the same pictures and holes."""

    methods: dict[str, MethodScores]
    num_images: int  # test pictures, each under a hole of every family
    num_photographs: int  # that these were cut from
    families: list[str]
    model_digest: str
    dataset_digest: str
    run_id: str
    model: str
    steps: int
    champion: str = ""  # version number of the champion that was scored again; "" for none
    champion_dataset: str = ""  # digest of what it was trained on; "" where the registry does not say
    beside: dict[str, Beside] = {}  # all methods on the same ``num_beside`` pictures per family
    num_beside: int = 0
    differences: Differences = {}
    slices: list[Slice] = []
    blind: bool = False  # the model was not shown where the damage is, and nothing was pasted for it
    champion_blind: bool = False
    exported: Exported | None = None
    paper: str = ""  # which training the paper's context encoder is from, or why there is none, in a sentence
    logged_model: str = ""  # the model's id in MLflow, to which its test scores are tied
    run_page: str = ""  # the run in MLflow's web pages, where it has any

    @property
    def in_tables(self) -> list[str]:
        """The shown methods in the order of tables: the model first, where a narrow page shows it."""
        return [name for name in reversed(SHOWN) if name in self.methods]

    def page_of(self, file: str) -> str:
        """The page of a file that the run logged, in MLflow; ``""`` where MLflow has no pages."""
        run, mark, query = self.run_page.partition("?")
        return f"{run}/artifacts/{file}{mark}{query}" if run else ""

    @property
    def ranked(self) -> list[str]:
        """All methods that repaired every picture, as ``in_tables``."""
        return [name for name in reversed(LABELS) if name in self.methods]

    def score(self, method: str, family: str) -> Score:
        """A method's score under one family's holes, or ``"overall"``; ``UNSCORED`` where there is none."""
        scores = self.methods.get(method)
        if scores is None:
            return UNSCORED
        return scores.overall if family == OVERALL else scores.families.get(family, UNSCORED)

    def gain(self, method: str, family: str, metric: str) -> Interval | None:
        """How much more this model scores than another, paired; ``None`` where they were not compared."""
        return self.differences.get(method, {}).get(family, {}).get(metric)


class Rule(_Frozen):
    """One rule of the gate: whether it holds, and why in one sentence."""

    name: str
    passed: bool
    sentence: str


class Decision(_Frozen):
    """The gate's word on a model."""

    admitted: bool
    rules: list[Rule]
    policy: dict[str, float | str] = {}
    champion: str = ""  # version number of the champion it was compared with
    mode: str = "enforce"  # of the policy
    advice: list[str] = []  # what to do next, in sentences

    @property
    def policy_digest(self) -> str:
        """SHA-256 of what the gate asked for; equal policies have equal digests, whatever code applied them."""
        asked = {name: value for name, value in self.policy.items() if name != "code_version"}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @property
    def missed(self) -> str:
        """The sentences of the rules that do not hold."""
        return " ".join(rule.sentence for rule in self.rules if not rule.passed)

    @property
    def headline(self) -> str:
        """The decision alone."""
        if self.mode == "dry_run":
            return "Dry run, nothing is registered" + ("" if self.missed else "; every rule holds") + "."
        if not self.admitted:
            return "Refused."
        if self.mode == "off":
            return "Admitted unjudged, the gate is off."
        return "Admitted: every rule holds." + (" It waits to be promoted by hand." if self.mode == "manual" else "")

    @property
    def verdict(self) -> str:
        """The decision, with what speaks against the model."""
        return f"{self.headline[:-1]}: {self.missed}" if self.missed else self.headline
