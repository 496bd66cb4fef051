from __future__ import annotations

import pytest

from components.train.guard import Guard, TrainingDiverged

WELL = {"d_loss": 0.9, "g_loss": 1.0, "gradient_norm": 2.0, "d_spread": 0.3}


@pytest.mark.parametrize("name", ["d_loss", "g_loss", "gradient_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(name: str, value: float) -> None:
    with pytest.raises(TrainingDiverged, match=r"by step 7 .* is no finite number"):
        Guard(adversarial=True).check({**WELL, name: value}, 7)


def test_a_gradient_far_above_the_usual_is_an_explosion() -> None:
    guard = Guard(adversarial=True)
    for step in range(20):
        guard.check({**WELL, "gradient_norm": 2.0 + step % 3}, step)
    guard.check({**WELL, "gradient_norm": 50.0}, 20)  # a hard batch
    with pytest.raises(TrainingDiverged, match="gradient exploded"):
        guard.check({**WELL, "gradient_norm": 5000.0}, 21)


@pytest.mark.parametrize(
    ("ill", "reason"), [({"d_spread": 0.0}, "answers everything alike"), ({"d_loss": 0.0}, "without a mistake")]
)
def test_a_discriminator_that_is_of_no_use_is_noticed_after_a_while(ill: dict[str, float], reason: str) -> None:
    guard = Guard(adversarial=True)
    for step in range(9):
        guard.check({**WELL, **ill}, step)
    guard.check(WELL, 9)  # it recovered
    for step in range(9):
        guard.check({**WELL, **ill}, step)
    with pytest.raises(TrainingDiverged, match=reason):
        guard.check({**WELL, **ill}, 20)


def test_without_an_adversarial_loss_the_discriminator_does_not_matter() -> None:
    guard = Guard(adversarial=False)
    for step in range(30):
        guard.check({**WELL, "d_spread": 0.0, "d_loss": 0.0}, step)
