"""Durations: each unit by hand, rounding, and what cannot be read."""

import pytest

from vitcnn.recipe import durations

# 50 images in batches of 8 are 6.25 steps an epoch; the training has 90 steps.
STEPS = {
    0: 0,
    7: 7,
    1e4: 10_000,
    "300": 300,
    "10000 steps": 10_000,
    "1 step": 1,
    "10_000steps": 10_000,
    "4 epochs": 25,
    "1 epoch": 6,
    "10 epochs": 63,  # 62.5
    "0.5 epochs": 3,
    "0.01 epochs": 1,  # at least one
    "0 epochs": 0,
    "1e3 examples": 125,
    "1 example": 1,
    "  100   Examples ": 13,
    "5%": 5,  # 4.5
    "0.1 %": 1,
    "0%": 0,
    "100%": 90,
}


@pytest.mark.parametrize("duration", STEPS)
def test_duration_in_steps(duration):
    result = durations.steps(duration, batch=8, images=50, total=90)
    assert result == STEPS[duration] and type(result) is int


def test_an_epoch_of_imagenet_is_rounded_once():
    """The count of "better plain ViT baselines": 90 epochs of 1 281 167 images at batch 1024."""
    assert durations.steps("90 epochs", batch=1024, images=1_281_167) == 112_603
    assert 90 * (1_281_167 // 1024) == 112_590


EXPECTED = 'expected a whole number of steps, or text such as "10000 steps", "300 epochs"'
BAD = {
    "0.1": EXPECTED,
    0.1: EXPECTED,
    -3: EXPECTED,
    "-1 epochs": EXPECTED,
    "2.5 steps": EXPECTED,
    float("nan"): EXPECTED,
    "nan epochs": EXPECTED,
    "inf": EXPECTED,
    "1e999 epochs": EXPECTED,
    "1.2.3 epochs": EXPECTED,
    True: EXPECTED,
    "": EXPECTED,
    "epochs": EXPECTED,
    "5% epochs": EXPECTED,
    "300 epocs": "unknown unit 'epocs', did you mean 'epochs'",
    "3 days": "unknown unit 'days', .*'steps', 'epochs', 'examples', '%'",
    "101%": "at most 100%",
}


@pytest.mark.parametrize("duration", BAD, ids=str)
def test_what_cannot_be_read_is_named(duration):
    with pytest.raises(ValueError, match=f"^config.schedule.warmup = .*{BAD[duration]}"):
        durations.steps(duration, batch=8, images=50, total=90, where="config.schedule.warmup")


def test_the_training_itself_has_no_percentage():
    with pytest.raises(ValueError, match=r"config.steps = '5%': a percentage is a part of"):
        durations.steps("5%", batch=8, images=50)
