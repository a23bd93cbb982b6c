"""Ablations: several trainings that differ in one thing, over several seeds, and Results over them.

Read the files in this order:

- `plan`: the runs of an ablation, and the folder of each network;
- `budget`: what they will cost, before the first step;
- `summaries`: which numbers of a Result are compared between networks;
- `gather`: Results of single networks -> one Result with the dimensions run and seed;
- `driver`: trains what is not yet trained, measures, gathers;
- `text`: the numbers in lines of text.
"""

from vitcnn.ablations.driver import ablate, networks
from vitcnn.ablations.text import table

__all__ = ["ablate", "networks", "table"]
