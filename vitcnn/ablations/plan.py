"""Plan: the runs of an ablation, the networks to train, and where each of them lies.

<workdir>/run.json                       the ablation to which the folder belongs
<workdir>/networks/<run>/<seed>/         a training, as scripts/train.py writes it
<workdir>/measurements/<run>/<seed>/     its Results, as scripts/analyze.py writes them
<workdir>/<analysis>.nc                  Results with the dimensions run and seed
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from vitcnn import storage
from vitcnn.config import BASELINE, Training, check_ablation
from vitcnn.engine import identity
from vitcnn.lookup import nearest
from vitcnn.results import workdir as run_folder
from vitcnn.storage import Path
from vitcnn.training import start

DIVERGED = "diverged.json"  # in the folder of a training that will not be tried again


@dataclasses.dataclass(frozen=True)
class Network:
    """One network of an ablation: a run with one seed."""

    run: str
    seed: int

    def __str__(self) -> str:
        return f"{self.run}/{self.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """An ablation, checked.

    Attributes:
      config: the checked config; `config.runs` has a whole training config for each run.
      workdir: its folder.
      record: what run.json says: what decides the numbers of the networks. More seeds, other
        factors and other analyses leave it as it is.
    """

    config: ConfigDict
    workdir: Path
    record: dict[str, Any]

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs: the baseline first, and each after the run that it starts from."""
        names: list[str] = []
        for name in sorted(self.config.runs, key=lambda name: (name != BASELINE, name)):
            chain = [name]
            while before := self.config.start.get(chain[-1]):
                chain.append(before)
            names += [each for each in reversed(chain) if each not in names]
        return tuple(names)

    @property
    def networks(self) -> list[Network]:
        """All networks: all runs of one seed, then of the next; early stops leave whole seeds."""
        return [Network(run, seed) for seed in range(self.config.seeds) for run in self.runs]

    def chosen(self, name: str) -> list[Network]:
        """Returns the networks that a name chooses: "run/seed", or "run" for all its seeds.

        Raises:
          ValueError: there is no such network; the message gives the nearest names.
        """
        chosen = [n for n in self.networks if name in (str(n), n.run)]
        if not chosen:
            names = [*self.runs, *map(str, self.networks)]
            raise ValueError(f"--run={name} names no run: {nearest(name, names)}")
        return chosen

    def folder(self, network: Network) -> Path:
        """Returns the folder of a training."""
        return self.workdir / "networks" / network.run / str(network.seed)

    def measurement(self, network: Network) -> Path:
        """Returns the folder of the Results of a network."""
        return self.workdir / "measurements" / network.run / str(network.seed)

    def is_trained(self, network: Network) -> bool:
        """Returns whether a training has ended."""
        return start.finished(self.folder(network))

    def diverged(self, network: Network) -> str:
        """Returns why a training ended without a network, "" if it did not."""
        note = storage.read_json(self.folder(network) / DIVERGED)
        return "" if note is None else note["error"]

    def origin(self, network: Network) -> Network | None:
        """Returns the network from whose weights a network starts; None for those of its config."""
        run = self.config.start.get(network.run)
        return Network(run, network.seed) if run else None

    def training(self, network: Network) -> ConfigDict:
        """Returns the training config of a network."""
        config = self.config.runs[network.run].copy_and_resolve_references()
        config.seed += network.seed
        if config.data_seed >= 0:
            config.data_seed += network.seed
        if origin := self.origin(network):
            config.init_from = str(self.folder(origin))
        return config

    def compared(self, network: Network) -> dict[str, Network]:
        """Returns the networks that the analyses of a network see, by name.

        A run that is compared with itself has no "paired". With two seeds there is only one pair of
        them, so the second seed of such a run has no "other".
        """
        against = self.config.against.get(network.run, BASELINE)
        seen = {"model": network}
        if against != network.run:
            seen["paired"] = Network(against, network.seed)
        once = self.config.seeds == 2 and network.seed == 1 and against == network.run
        if self.config.seeds > 1 and not once:
            seen["other"] = Network(against, (network.seed + 1) % self.config.seeds)
        return seen


def make(config: Any, workdir: Any) -> Plan:
    """Checks an ablation and its workdir, and claims the workdir.

    Args:
      config: fields of `vitcnn.config.Ablation`.
      workdir: folder of the ablation.

    Raises:
      ValueError: anything that is unknown or does not fit; or a workdir of another ablation.
      OSError: the workdir cannot be written.
    """
    config = check_ablation(config)
    runs, neutral = {}, set()
    for name, training in config.runs.items():
        fields = training.to_dict()
        runs[name] = {k: v for k, v in fields.items() if k not in Training.NEUTRAL}
        entries = identity.neutral(training)
        neutral |= {f"ablation.runs.{name}.{entry.removeprefix('config.')}" for entry in entries}
    record = {
        "ablation": {
            "name": config.name,
            "runs": runs,
            **{key: config[key].to_dict() for key in ("against", "start")},
        }
    }
    workdir = storage.absolute(storage.as_path(workdir, "workdir"))
    before = storage.read_json(workdir / run_folder.RECORD)
    if before is not None and "ablation" not in before:
        raise ValueError(
            f"workdir {workdir} holds a training or a measurement, and no ablation: choose another "
            "--workdir"
        )
    run_folder.claim_workdir(workdir, record, neutral)
    return Plan(config, workdir, record)
