r"""Make the meta-trained model of the package, `checkpoint=everyday`, from runs of one experiment with several seeds.

    python scripts/data/everyday_base.py FOLDER [RUN ...] [--rank 32]

The runs are those of

    metatrain train -m +experiment=everyday tasks.fold=null validation.every=0 evaluation.arms=[] outer.steps=30 seed=0,1,2

FOLDER is metatrain/models/bases/everyday for the one in the package. The weights of the runs are averaged (Wortsman et al. 2022), each with
its weight interpolation, and written as the difference to the model before meta-training, matrices at low rank. Then the temperature of its
probabilities is learned from episodes of tasks of the collection, which it was trained on: no others are in the package. Its prediction sets for fewer
than 20 examples are calibrated on tasks that it was not trained on, since scores of its own tasks would be too low: one task of each of the 38 families
of `tasks=universal` (METATRAIN_DATA has them), with all of its classes and 1, 2 and 5 examples of each. Without runs, only these two are done again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from metatrain.checkpoints.opening import open_base, open_checkpoint
from metatrain.checkpoints.recipe import FORMAT, SavedRecipe
from metatrain.config.compose import composed
from metatrain.config.schema import Overrides, TrainConfig
from metatrain.evaluation.temperature_episodes import TemperatureEpisodes
from metatrain.meta.learner import Learner
from metatrain.meta.sets_across_tasks import described_sets, with_sets
from metatrain.meta.temperature import TemperatureCase, described, learned_temperature
from metatrain.models.bases import SETTINGS, write_base
from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.task import Task

EPISODES = 200  # from which the temperature is learned
SHOTS, ROWS = (1, 2, 5), 400  # of the tasks on which prediction sets are calibrated: examples per class; rows at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--rank", type=int, default=32)
    given = parser.parse_args()
    if given.runs:
        write_weights(given.folder, given.runs, given.rank)
    write_temperature(given.folder)
    print(f"{given.folder}: {sum(path.stat().st_size for path in given.folder.iterdir()) / 1e6:.1f} MB")


def write_weights(folder: Path, runs: list[str], rank: int) -> None:
    """Write the mean of the weights of some runs as a base."""
    opened = [open_checkpoint(run, Overrides(), torch.device("cpu"), torch.float32, print) for run in runs]
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
    del facts["prompt"], facts["temperature"]
    write_base(folder, facts, difference, rank)


def write_temperature(folder: Path) -> None:
    """Learn the temperature of a base from episodes of tasks of the collection, calibrate its prediction sets, and write both beside its other settings."""
    learner = open_base(folder.name, Overrides(), torch.device("cpu"), torch.float32, print, folder.parent).learner
    settings = TasksConfig(path="metatrain:everyday", task="task", meta_train=SplitConfig(tasks=["*"]), holdout=0.0)
    tasks, tokens = load_tasks(settings, 0).meta_train, learner.model.tokens()
    tokens.check(tasks)
    episodes = TemperatureEpisodes.of(learner, tasks, tokens, EpisodeConfig(), 0, EPISODES)
    cases = episodes.cases(learner, Counter("temperature", len(episodes)))
    found = learned_temperature(cases)
    print("", *described(found, cases), sep="\n")
    found = with_sets(found, unseen_cases(learner))
    print("", *described_sets(found), sep="\n")
    path = folder / SETTINGS
    facts = {**json.loads(path.read_text(encoding="utf-8")), "temperature": asdict(found)}
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def unseen_cases(learner: Learner) -> list[TemperatureCase]:
    """Return episodes of tasks that the base was not trained on, the first task of each family of `tasks=universal`."""
    config: TrainConfig = composed("train", ["tasks=universal", f"tasks.max_rows={ROWS}", "algorithm=leave_one_out", "model=minilm"], TrainConfig)
    families: dict[str, Task] = {}
    for task in load_tasks(config.tasks, 0).meta_train:
        families.setdefault(task.name.split("/")[0], task)
    tokens = learner.model.tokens()
    tokens.check(list(families.values()))
    cases = []
    for shots in SHOTS:
        episodes = TemperatureEpisodes.of_whole_tasks(list(families.values()), tokens, shots, 1, 0, "meta_test")
        cases += episodes.cases(learner, Counter(f"prediction sets, {shots} examples per class", len(episodes)))
    return cases


class Counter:
    """Line of progress on the terminal."""

    def __init__(self, what: str, number: int):
        self._what, self._number, self._done = what, number, 0

    def __call__(self, number: int) -> None:
        """Count episodes that are done."""
        self._done += number
        print(f"{self._what}: {self._done} of {self._number} episodes", end="\r", flush=True)


if __name__ == "__main__":
    main()
