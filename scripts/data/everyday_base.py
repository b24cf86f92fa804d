r"""Make the meta-trained model of the package, `checkpoint=everyday`, from runs of one experiment with several seeds.

    python scripts/data/everyday_base.py FOLDER RUN [RUN ...] [--rank 32]

The runs are those of

    metatrain train -m +experiment=everyday tasks.fold=null validation.every=0 evaluation.arms=[] outer.steps=30 seed=0,1,2

FOLDER is metatrain/models/bases/everyday for the one in the package. The weights of the runs are averaged (Wortsman et al. 2022), each with
its weight interpolation, and written as the difference to the model before meta-training, matrices at low rank.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.checkpoints.recipe import FORMAT, SavedRecipe
from metatrain.config.schema import Overrides
from metatrain.models.bases import write_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rank", type=int, default=32)
    given = parser.parse_args()
    opened = [open_checkpoint(run, Overrides(), torch.device("cpu"), torch.float32, print) for run in given.runs]
    learner, before = opened[0].learner, opened[0].untrained().parameters
    mean = {name: torch.stack([each.learner.parameters[name] for each in opened]).mean(0) for name in learner.parameters}
    words = learner.prefix + str(learner.model.word_embeddings)
    difference = {name: value - before[name] for name, value in mean.items() if name.startswith(learner.prefix) and name != words}
    config = opened[0].config
    assert config is not None  # of a run
    facts = asdict(SavedRecipe(FORMAT, config.model.name, config.model, config.algorithm, config.inner, config.episode, config.seed))
    facts["inner"]["fit_head"] = True  # as for a plain model
    facts["model"] = {key: facts["model"][key] for key in ("pooling", "normalize", "max_length")}
    facts["learned"] = {name: value.tolist() for name, value in mean.items() if not name.startswith(learner.prefix)}
    write_base(given.folder, facts, difference, given.rank)
    print(f"{given.folder}: {sum(path.stat().st_size for path in given.folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
