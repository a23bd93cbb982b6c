"""Do low heads turn local because there is more data, or because the data are harder?

python scripts/ablate.py --config=configs/ablations/amount_or_difficulty.py:mini \
    --workdir=runs/amount_or_difficulty
python scripts/report.py --workdir=runs/amount_or_difficulty

The paper's large set is both larger and harder. Here the number of images and the noise in them
vary independently, three levels of each, for the same number of steps with the same settings.

Measured on the images of the baseline: the attention distance of the lowest heads. Its effects of
the amount, of the noise and of both together, with intervals over seeds, say which of the two it
is. Expected: with mini, the baseline (all images, the usual noise) reaches 91%.

Time (2 CPU cores): mini trains 27 networks, 3 seeds of 9 runs, in an hour. Sizes: smallest and
mini.
"""

from ml_collections import ConfigDict

from vitcnn.config import ablation_sizes, analysis
from vitcnn.lookup import check_name

AMOUNTS = (600, 2000, 20_000)
NOISES = (0.1, 0.2, 0.4)
USUAL = 20_000, 0.2


def get_config(argument: str = "mini") -> ConfigDict:
    """Returns the ablation in a size."""
    (size_name,) = ablation_sizes.parse(argument)
    check_name("size of this ablation, which is on scenes:", size_name, ("smallest", "mini"))
    config, size = ablation_sizes.start("amount_or_difficulty", "vit", size_name)
    smallest = size_name == "smallest"
    amounts, noises = ((16, 32), (0.2, 0.4)) if smallest else (AMOUNTS, NOISES)
    for amount in amounts:
        for noise in noises:
            usual = (amount, noise) == ((32, 0.2) if smallest else USUAL)
            run = "baseline" if usual else f"{amount:05d}_noise{round(100 * noise)}"
            if not usual:
                config.runs[run] = {"data": {"count": amount, "noise": noise}}
            config.factors[run] = {"amount": amount, "noise": noise}
    config.analyses.accuracy = analysis("accuracy")
    config.analyses.attention_distance = analysis("attention_distance", images=size.few)
    return config
