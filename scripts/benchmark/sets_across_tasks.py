"""Measure prediction sets that are calibrated on other tasks: python scripts/benchmark/sets_across_tasks.py [--checkpoint everyday] [--episodes 3]

A support set of fewer than 20 examples is too small to calibrate prediction sets; a checkpoint may have a calibration from episodes of other tasks
(`meta/sets_across_tasks.py`). Measured are its coverage and the size of the sets on the eight validation sets of `tasks=universal`, which neither the
base nor its calibration has seen, with 1, 2 and 5 examples of each class: all classes of a set, or as many as have fewer than 20 examples. Beside them
stands the rule that needs no calibration: the most probable labels until their probabilities sum to the coverage.

Coverage and sizes are means over sets, each the mean of its episodes; intervals are 95% t intervals over sets. Logits are kept in the folder --cache, so
that a second run only makes the table of docs/probabilities.md; remove it when the weights have changed. METATRAIN_DATA has the sets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from labelling import half_width

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.compose import composed
from metatrain.config.schema import Overrides, TrainConfig
from metatrain.evaluation.temperature_episodes import TemperatureEpisodes
from metatrain.meta.learner import Learner
from metatrain.meta.sets_across_tasks import facts_of, probabilities_of
from metatrain.meta.temperature import TemperatureCase
from metatrain.models.decisions import decided
from metatrain.models.prediction_sets import calibration, limits
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.distribution import load_tasks

SHOTS, COVERAGES, ROWS = (1, 2, 5), (0.8, 0.9), 400  # rows of a set at most


def cases(learner: Learner, shots: int, episodes: int, path: Path) -> list[TemperatureCase]:
    """Return the episodes of the sets, from the file if it is there."""
    if not path.exists():
        config: TrainConfig = composed("train", ["tasks=universal", f"tasks.max_rows={ROWS}", "algorithm=leave_one_out", "model=minilm"], TrainConfig)
        tokens, tasks = learner.model.tokens(), [task for task in load_tasks(config.tasks, 0).meta_validation if task.label_sets is None]
        tokens.check(tasks)
        found = TemperatureEpisodes.of_whole_tasks(tasks, tokens, shots, episodes, 0, "meta_test").cases(learner)
        path.write_text(json.dumps([{key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(case).items()} for case in found]))
    return [TemperatureCase.of(row) for row in json.loads(path.read_text())]


def measured(case: TemperatureCase, learner: Learner, coverage: float) -> tuple[float, ...]:
    """Return coverage and mean size of the calibrated sets, and of those by probabilities only; NaN where the calibration refuses the task."""
    assert learner.temperature is not None  # `main` has looked
    probabilities, labels = probabilities_of(case, learner.temperature), case.labels.tolist()
    ranks = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, ranks, 1)
    sizes = (ranked.cumsum(1) - ranked < coverage).sum(1)  # until they sum to the coverage
    plain = [label in order[:size] for label, order, size in zip(labels, ranks.tolist(), sizes)]
    names = [str(label) for label in range(case.way)]
    sets = learner.temperature.fitted_sets if case.is_fitted else learner.temperature.made_sets
    facts = None if sets is None else facts_of(sets, case.way, case.shots)
    if facts is None:
        return np.nan, np.nan, float(np.mean(plain)), float(sizes.mean())
    few = calibration(np.zeros((0, case.way)), np.zeros(0, np.int64), None, facts)
    found = [each.prediction_set or () for each in decided(np.log(probabilities), names, None, limits=limits("the model", few, names, coverage))]
    shares = [np.mean([str(label) in each for label, each in zip(labels, found)]), np.mean(list(map(len, found))), np.mean(plain), sizes.mean()]
    return tuple(map(float, shares))


def rows(learner: Learner, shots: int, found: Sequence[TemperatureCase]) -> list[str]:
    """Return a row of the table for each coverage."""
    tasks = sorted({case.task for case in found})
    lines = []
    for coverage in COVERAGES:
        of_tasks = np.array([np.mean([measured(case, learner, coverage) for case in found if case.task == task], 0) for task in tasks])  # [tasks, 4]
        of_tasks = of_tasks[~np.isnan(of_tasks).any(1)]
        shares, sizes, plain, plain_sizes = of_tasks.T
        classes = np.mean([case.way for case in found])
        accuracy = np.mean([np.mean([(case.logits.argmax(1) == case.labels).mean() for case in found if case.task == task]) for task in tasks])
        span = f"{100 * shares.min():.0f} to {100 * shares.max():.0f}%"
        cells = [shots, coverage, len(shares), f"{classes:.1f}", f"{100 * accuracy:.0f}%", _interval(shares), span, f"{sizes.mean():.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {_interval(plain)} | {plain_sizes.mean():.1f} |")
    return lines


def _interval(values: np.ndarray) -> str:
    half = half_width(values)
    return f"{100 * values.mean():.1f}% [{100 * (values.mean() - half):.1f}, {100 * (values.mean() + half):.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="everyday")
    parser.add_argument("--episodes", type=int, default=3, help="number of episodes per set")
    parser.add_argument("--cache", type=Path, default=Path("outputs/sets_across_tasks"))
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    device, dtype, _ = hardware.apply(HardwareConfig(device="cpu", threads=1))
    learner = open_checkpoint(given.checkpoint, Overrides(), device, dtype, print).learner
    if learner.temperature is None:
        raise SystemExit(f"{given.checkpoint} has no learned temperature")
    print("| examples per class | coverage | sets | classes | accuracy | measured | of single sets | labels | by probabilities: measured | labels |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for shots in SHOTS:
        found = cases(learner, shots, given.episodes, given.cache / f"{given.checkpoint.replace('/', '-')}-{shots}-{given.episodes}.json")
        print("\n".join(rows(learner, shots, found)), flush=True)


if __name__ == "__main__":
    main()
