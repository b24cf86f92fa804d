"""Simulate the false-positive rate and the power of verdicts: python scripts/benchmark/verdicts.py

Simulates metatrain/evaluation/statistics.py: paired differences of two methods, with tasks, training seeds, their interaction and episodes as
normal random effects, in points of accuracy. A false verdict is a verdict for a true difference of zero: on tasks like these, or, with
one or two tasks, on these tasks. Each cell is the worst case over several standard deviations. Takes about a minute; --write puts the tables
into docs/correctness.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metatrain.evaluation.statistics import FEWEST_TASKS, LEVEL, half_widths, holm, p_values
from metatrain.report.sections import put_between

PAGE = Path(__file__).parents[2] / "docs" / "correctness.md"
BEGIN, END = "<!-- made by scripts/benchmark/verdicts.py -->", "<!-- end -->"
TASKS, EPISODES, SEEDS = (1, 2, 3, 4, 8, 20), (5, 50, 500), (1, 2, 3, 5)
OF_TASKS, OF_SEEDS, OF_EPISODES = (0.0, 1.0, 2.0), (0.0, 1.0, 2.0), 5.0  # standard deviations in points
INTERACTION = 0.5  # of task and seed
DIFFERENCE = 5.0  # whose power is shown, with the middle spreads
QUERIES = 20  # of an episode, where scores are shares
COMPARISONS = 6  # in a table
SIMULATIONS = 10_000  # of each cell


@dataclass(frozen=True)
class Spread:
    """Standard deviations over tasks and over training seeds, in points."""

    tasks: float
    seeds: float = 0.0


@dataclass(frozen=True)
class Sample:
    """The quantities that the rule reads, of many simulations."""

    mean: np.ndarray  # [simulations]
    variances: np.ndarray  # [sources, simulations]
    df: np.ndarray  # [sources, 1]

    def has_verdict(self) -> np.ndarray:
        """Whether the 95% interval excludes zero, [simulations]."""
        return np.abs(self.mean) > half_widths(self.variances, self.df)

    def p(self) -> np.ndarray:
        """p of each simulation, [simulations]."""
        return p_values(self.mean, self.variances, self.df)


def draw(rng: np.random.Generator, tasks: int, episodes: int, seeds: int, spread: Spread, difference: float = 0.0) -> Sample:
    """Draw simulations of a difference. All seeds see the same episodes, whose variance is half common to them.

    With normal episodes, the rule reads nothing but a task's mean and the variance within it, which are independent: these are drawn.
    A single training seed is in no interval, and the claim is about the model that it gave: there its spread is zero.
    """
    effects = rng.normal(0, spread.tasks, (SIMULATIONS, 1, tasks))
    if tasks < FEWEST_TASKS:
        effects -= effects.mean(2, keepdims=True)  # the difference is that on these tasks
    of_half = OF_EPISODES / np.sqrt(2 * episodes)
    means = difference + effects + rng.normal(0, of_half, (SIMULATIONS, 1, tasks)) + rng.normal(0, of_half, (SIMULATIONS, seeds, tasks))
    if spread.seeds:
        means += rng.normal(0, spread.seeds, (SIMULATIONS, seeds, 1)) + rng.normal(0, INTERACTION, (SIMULATIONS, seeds, tasks))
    if tasks >= FEWEST_TASKS:
        variances, df = [means.mean(1).var(1, ddof=1) / tasks], [tasks - 1]
    else:
        within = of_half**2 * (1 + 1 / seeds) / tasks**2
        variances, df = list(within * rng.chisquare(episodes - 1, (tasks, SIMULATIONS)) / (episodes - 1)), [episodes - 1] * tasks
    if seeds > 1:
        variances, df = [*variances, means.mean(2).var(1, ddof=1) / seeds], [*df, seeds - 1]
    return Sample(means.mean((1, 2)), np.stack(variances), np.array(df)[:, None])


def spreads(seeds: int) -> list[Spread]:
    """Those that are simulated for this number of training seeds."""
    return [Spread(tasks, of_seeds) for tasks in OF_TASKS for of_seeds in (OF_SEEDS if seeds > 1 else OF_SEEDS[:1])]


def false_verdicts(rng: np.random.Generator, tasks: int, episodes: int, seeds: int) -> float:
    """The worst share of false verdicts over the spreads."""
    return max(float(draw(rng, tasks, episodes, seeds, spread).has_verdict().mean()) for spread in spreads(seeds))


def power(rng: np.random.Generator, tasks: int, episodes: int, seeds: int) -> float:
    """How often DIFFERENCE is found, with the middle spread of each source."""
    spread = Spread(OF_TASKS[1], OF_SEEDS[1] if seeds > 1 else 0.0)
    return float(draw(rng, tasks, episodes, seeds, spread, DIFFERENCE).has_verdict().mean())


def of_a_table(rng: np.random.Generator, tasks: int, episodes: int, comparisons: int) -> tuple[float, float]:
    """Shares of tables of comparisons, none of which differs, with a false verdict among them: by plain p, by Holm's."""
    p = np.stack([draw(rng, tasks, episodes, 1, Spread(OF_TASKS[1])).p() for _ in range(comparisons)], axis=1)
    adjusted = np.array([holm(row) for row in p])
    return float((p < LEVEL).any(1).mean()), float((adjusted < LEVEL).any(1).mean())


def read_off(scores: np.ndarray) -> Sample:
    """What the rule reads of differences [simulations, tasks, episodes] of one training seed."""
    number, tasks, episodes = scores.shape
    means = scores.mean(2)
    if tasks >= FEWEST_TASKS:
        return Sample(means.mean(1), means.var(1, ddof=1)[None] / tasks, np.array([[tasks - 1]]))
    return Sample(means.mean(1), scores.var(2, ddof=1).T / episodes / tasks**2, np.full((tasks, 1), episodes - 1))


def without_normality(rng: np.random.Generator, tasks: int) -> list[float]:
    """Shares of false verdicts where the model does not hold: few queries at high accuracy, effects of tasks with one heavy tail, with two."""
    shape = (SIMULATIONS, tasks, EPISODES[1])
    few = (rng.binomial(QUERIES, 0.95, shape) - rng.binomial(QUERIES, 0.95, shape)) / QUERIES
    found = [read_off(few)]
    if tasks >= FEWEST_TASKS:
        noise = rng.normal(0, OF_EPISODES, shape)
        for effects in (rng.exponential(1, shape[:2]) - 1, rng.standard_t(3, shape[:2])):
            found.append(read_off(noise + OF_TASKS[-1] * effects[:, :, None]))
    return [float(sample.has_verdict().mean()) for sample in found]


def tables() -> str:
    """The tables, in Markdown."""
    rng = np.random.default_rng(0)
    seeds = [f"{count} seed{'s' if count > 1 else ''}" for count in SEEDS]
    lines = [f"| tasks | episodes | {' | '.join(seeds)} |", f"|---|---|{'---|' * len(SEEDS)}"]
    for tasks in TASKS:
        for episodes in EPISODES:
            cells = [f"{100 * false_verdicts(rng, tasks, episodes, count):.1f} / {100 * power(rng, tasks, episodes, count):.0f}" for count in SEEDS]
            lines.append(f"| {tasks} | {episodes} | {' | '.join(cells)} |")
    lines += ["", f"| tasks | {COMPARISONS} comparisons, uncorrected p | {COMPARISONS} comparisons, Holm-corrected p |", "|---|---|---|"]
    for tasks in TASKS:
        plain, adjusted = of_a_table(rng, tasks, EPISODES[1], COMPARISONS)
        lines.append(f"| {tasks} | {100 * plain:.1f} | {100 * adjusted:.1f} |")
    lines += ["", f"| tasks | accuracy 95%, {QUERIES} queries | exponential task effects | task effects t with 3 df |", "|---|---|---|---|"]
    for tasks in TASKS:
        shares = [f"{100 * share:.1f}" for share in without_normality(rng, tasks)]
        lines.append(f"| {tasks} | {' | '.join([*shares, '', ''][:3])} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/correctness.md")
    arguments = parser.parse_args()
    text = tables()
    print(text)
    if arguments.write:
        put_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    main()
