"""What is drawn follows what was learned of the tasks, and goes on after a checkpoint."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from metatrain.errors import UserError
from metatrain.tasks.config import EpisodeConfig, SamplingConfig
from metatrain.tasks.episodes import training_episode
from metatrain.tasks.sampler import RULES, Sampler, SamplerState, check_sampling
from metatrain.tasks.task import Task, TaskDistribution

STEPS = 100


def distribution(weights=None) -> TaskDistribution:
    everywhere = np.ones(8, dtype=bool)
    tasks = [Task(f"task {n}", tuple(f"text {n} {row}" for row in range(8)), np.arange(8) % 2, ("a", "b"), everywhere, everywhere) for n in range(4)]
    return TaskDistribution("four", tuple(tasks), weights=weights)


def run(by: str, loss, steps: int = STEPS, weights=None, begin: Sampler | None = None, first: int = 0, **settings) -> tuple[Sampler, list[str]]:
    """`loss(task, times drawn)` plays the learner."""
    sampler = begin or Sampler(SamplingConfig(by=by, **settings), distribution(weights), STEPS)
    drawn: list[str] = []
    for step in range(first, steps):
        tasks = sampler.tasks(step)
        assert tasks.weights is None or sum(tasks.weights) == pytest.approx(1)
        names = [training_episode(tasks, EpisodeConfig(shots=1, queries=1), 0, 4 * step + slot).task.name for slot in range(4)]
        sampler.learn(step, names, [loss(int(name[-1]), drawn.count(name)) for name in names])
        drawn += names
    return sampler, drawn


def shares(drawn: list[str]) -> np.ndarray:
    return np.array([drawn.count(f"task {n}") for n in range(4)]) / len(drawn)


def test_fixed_draws_as_if_there_were_no_sampler():
    _, drawn = run("fixed", lambda task, times: float(task))
    assert drawn == [training_episode(distribution(), EpisodeConfig(shots=1, queries=1), 0, index).task.name for index in range(4 * STEPS)]


def test_hardness_draws_in_proportion_to_the_exponential_of_the_standardised_loss():
    sampler, drawn = run("hardness", lambda task, times: float(task), exploration=0.0, strength=1.0)
    expected = np.exp((np.arange(4) - 1.5) / np.std(np.arange(4)))
    assert np.allclose(sampler.tasks(STEPS).weights, expected / expected.sum())
    assert shares(drawn[40:]) == pytest.approx(expected / expected.sum(), abs=0.08)


def test_exploration_keeps_a_share_of_the_fixed_weights():
    fixed = np.array([0.7, 0.1, 0.1, 0.1])
    sampler, _ = run("hardness", lambda task, times: float(task), weights=tuple(fixed), exploration=0.3, strength=10.0)
    assert np.all(np.array(sampler.tasks(STEPS).weights) >= 0.3 * fixed - 1e-12)


def test_a_curriculum_goes_from_easy_to_hard():
    _, drawn = run("curriculum", lambda task, times: float(task), strength=2.0, exploration=0.0)
    early, late = shares(drawn[:160]), shares(drawn[-160:])
    assert early[0] > 2 * early[3] and late[3] > 2 * late[0]


def test_a_bandit_draws_the_task_on_which_there_is_progress():
    rng = np.random.default_rng(0)
    _, drawn = run("bandit", lambda task, times: 10 - 0.1 * times + rng.normal(0, 0.01) if task == 2 else 1 + rng.normal(0, 0.01), steps=300)
    assert shares(drawn[400:])[2] > 0.5


@pytest.mark.parametrize("by", [by for by in RULES if by != "fixed"])
def test_a_sampler_continues_from_its_state_in_json(by):
    def loss(task: int, times: int) -> float:
        return 2.0 + np.sin(task * 7.1)

    whole, drawn = run(by, loss)
    half, first = run(by, loss, steps=50)
    again = Sampler(half.config, distribution(), STEPS)
    again.state = SamplerState(**json.loads(json.dumps(asdict(half.state))))
    _, rest = run(by, loss, begin=again, first=50)
    assert first + rest == drawn
    assert again.state == whole.state


def test_a_task_that_is_never_drawn_stays_so():
    _, drawn = run("hardness", lambda task, times: 1.0, weights=(0.5, 0.5, 0.0, 0.0))
    assert set(drawn) == {"task 0", "task 1"}


@pytest.mark.parametrize("changes", [{"by": "luck"}, {"exploration": 2.0}, {"decay": 1.0}, {"strength": -1.0}])
def test_values_that_make_no_sense(changes):
    with pytest.raises(UserError, match="tasks.sampling." + next(iter(changes))):
        check_sampling(SamplingConfig(**changes))
