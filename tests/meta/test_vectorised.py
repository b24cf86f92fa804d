"""Meta-gradients of several episodes in one pass are those of one after the other."""

import copy

import numpy as np
import pytest
import torch
from oracles import Anchored, Decaying

from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import RULES
from metatrain.gradient.parameters import Gradient
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.vectorised import Inputs
from metatrain.models.adapted import attach
from metatrain.models.adapters import ROWS as ADAPTERS
from metatrain.models.adapters import AdapterSettings
from metatrain.models.encoder import Encoder
from metatrain.models.heads import RULES as HEAD_RULES
from metatrain.models.heads import head_facts
from metatrain.tasks.encoded_episode import EncodedEpisode

EPISODES = 3
HEADS = ("linear", "zero", "shared", "prototype", "cosine", "ridge", "generated", "feat", "matching", "relation", "soft_k_means")
METHODS = [
    *(({"head": head}, "sgd") for head in HEADS),
    *(({"adapt": adapt}, "sgd") for adapt in ("body", "head", "last_layers", "layer_norm", *ADAPTERS)),
    *(({"meta_gradient": mode}, "sgd") for mode in ("exact_recomputed", "first_order", "reptile")),
    *(({}, rule) for rule in ("meta_sgd", "lslr", "curvature", "adam", "alfa")),
    ({"meta_gradient": "first_order"}, "lslr"),
    *(({"meta_gradient": mode}, rule) for mode in ("exact", "first_order") for rule in ("decaying", "anchored")),
    ({"multi_step_until": 10}, "sgd"),
    ({"first_order_until": 10}, "sgd"),
    ({"label_names": True}, "sgd"),
    ({"train": "adapted", "adapt": "last_layers"}, "sgd"),
]


def test_every_head_that_can_be_vectorised_is_tried():
    assert set(HEADS) == {name for name in HEAD_RULES if not head_facts(name).reads_names}


@pytest.fixture(autouse=True)
def rules_of_a_plug_in(monkeypatch):
    monkeypatch.setitem(RULES, "decaying", Decaying)
    monkeypatch.setitem(RULES, "anchored", Anchored)


def made(encoder: Encoder, rule: str = "sgd", **algorithm) -> EncoderLearner:
    torch.manual_seed(1)
    algorithm = AlgorithmConfig(**{"head": "prototype", "head_scale": 2.0, "adapt": "all", "last_layers": 1, **algorithm})
    if algorithm.adapt in ADAPTERS:
        encoder = copy.deepcopy(encoder)
        attach(encoder.backbone, algorithm.adapt, AdapterSettings(rank=2, targets=None, context_size=3))
    # Adam divides by the size of a gradient, however small it is, so that rounding would show.
    lr, head_lr = (1e-5, 1e-4) if rule == "adam" else (0.05, 0.4)
    learner = EncoderLearner(encoder, algorithm, InnerConfig(rule=rule, lr=lr, head_lr=head_lr, steps=2, rank=2), way=2, labels=("no", "yes"))
    for value in learner.parameters.values():
        if value.abs().max() == 0:
            value.normal_(std=0.1)  # a zero would hide what is multiplied by it
    return learner


def drawn(vocabulary: int, support: int = 4, queries: int = 3, seed: int = 0) -> list[EncodedEpisode]:
    rng = np.random.default_rng(seed)

    def texts(count: int) -> list[np.ndarray]:
        return [rng.integers(5, vocabulary, size=rng.integers(2, 12)) for _ in range(count)]

    labels = np.arange(support) % 2
    return [
        EncodedEpisode(texts(support), rng.permutation(labels), texts(queries), rng.integers(0, 2, queries), ("no", "yes"), name_tokens=texts(2))
        for _ in range(EPISODES)
    ]


def total(learner: EncoderLearner, parts: list[Gradient]) -> dict[str, torch.Tensor]:
    found = {name: torch.zeros_like(value) for name, value in learner.parameters.items()}
    for part in parts:
        learner.add_gradient(found, part, 1.0)
    return found


@pytest.mark.parametrize(("settings", "rule"), METHODS, ids=str)
def test_vectorised_equals_sequential(encoder, settings, rule):
    learner = made(encoder, rule, **settings)
    episodes = drawn(len(encoder.tokenizer))
    one_by_one = [learner.outer_gradient(episode) for episode in episodes]
    learner = learner.with_plan(ExecutionPlan(vectorised=EPISODES))
    assert [len(group) for group in learner.groups(episodes)] == [EPISODES]
    together = learner.outer_gradients(episodes)
    assert len(together) == EPISODES
    for name in ("loss_before", "loss_after", "accuracy_before", "accuracy_after"):
        for one, other in zip(one_by_one, together):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-11)
    expected, found = total(learner, one_by_one), total(learner, together)
    assert sum(value.square().sum() for value in expected.values()) > 1e-8
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6 if rule == "adam" else 1e-8, atol=1e-10, msg=name)


def test_graphs_that_are_rebuilt_give_the_same_bits(encoder):
    learner = made(encoder)
    episodes = drawn(len(encoder.tokenizer))
    learner = learner.with_plan(ExecutionPlan(vectorised=EPISODES))
    kept = total(learner, learner.outer_gradients(episodes))
    learner = learner.with_plan(ExecutionPlan(vectorised=EPISODES, graph_tokens=Inputs.of(learner.functional, episodes).support_ids.numel()))
    for name, value in total(learner, learner.outer_gradients(episodes)).items():
        assert torch.equal(value, kept[name]), name


def test_only_episodes_of_one_shape_are_vectorised(encoder):
    learner = made(encoder)
    learner = learner.with_plan(ExecutionPlan(vectorised=2))
    size = len(encoder.tokenizer)
    episodes = [*drawn(size), *drawn(size, support=6), *drawn(size, queries=5)]
    assert [len(group) for group in learner.groups(episodes)] == [2, 1, 2, 1, 2, 1]
    learner = learner.with_plan(ExecutionPlan(vectorised=9, part_tokens=40))
    assert all(len(group) == 1 for group in learner.groups(drawn(size, support=6)))  # an episode that is too long for one part goes alone
    for settings in ({"dropout": 0.1}, {"head": "joint"}, {"meta_gradient": "implicit", "proximal": 1.0}, {"meta_dropout": True}):
        learner = made(encoder, **settings)
        learner = learner.with_plan(ExecutionPlan(vectorised=9))
        assert all(len(group) == 1 for group in learner.groups(episodes)), settings
