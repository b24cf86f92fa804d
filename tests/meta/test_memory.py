"""What a learner is said to hold, and what is given up for less."""

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metatrain.gradient.config import InnerConfig
from metatrain.gradient.parameters import leaves
from metatrain.gradient.second_order import GradientGraph
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.memory import Footprint, Largest, fit, halvings
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.text_losses import TextLosses
from metatrain.models.adapted import row_of
from metatrain.models.adapters import AdapterSettings
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

LARGEST = Largest(text=64, support=640, query=320)


def learner(meta_gradient: str = "exact", adapt: str = "all", head: str = "linear", rule: str = "sgd") -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=64), second_order=True)
    return EncoderLearner(encoder, AlgorithmConfig(head=head, adapt=adapt, meta_gradient=meta_gradient), InnerConfig(steps=4, rule=rule), way=2)


def test_the_footprint_is_the_same_every_time():
    one, other = Footprint.of(learner(), 64), Footprint.of(learner(), 64)
    assert (one.loss, one.gradient, one.episode) == (other.loss, other.gradient, other.episode)
    assert 1.5 * one.loss < one.gradient < 4 * one.loss
    assert one.episode == 0


def test_frozen_parts_are_held_for_an_episode():
    whole, last, head = (Footprint.of(learner(adapt=adapt, head="prototype"), 64) for adapt in ("all", "last_layers", "head"))
    assert whole.episode > 0  # the head is made from the support set
    assert head.loss == pytest.approx(0, abs=100)
    assert head.episode > 0
    assert 0 < last.loss <= whole.loss


def test_a_graph_holds_what_is_said():
    """Of the whole support set, against the growth of what torch has allocated."""
    subject = learner()
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 500, 64) for _ in range(10)]
    episode = EncodedEpisode(texts, np.arange(10) % 2, texts[:5], np.arange(5) % 2, ("a", "b"))
    footprint = Footprint.of(subject, 64)
    losses = TextLosses.of(subject.functional, episode, seed=None)
    phi, fixed = map(leaves, losses.start(subject.functional.view(subject.parameters, losses.rows)))
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        graphs = [GradientGraph.of(part, phi, fixed)[1] for part in losses.support_parts(phi, fixed, 0)]
    assert graphs
    held = sum(event.self_cpu_memory_usage for event in profile.events())
    said = footprint.stored(LARGEST) * LARGEST.support
    assert held == pytest.approx(said, rel=0.1)


def test_weights_in_a_graph_are_not_counted_for_each_token():
    """Neither those that are not trained, which belong to the model, nor their copies in bf16, of which a graph has one."""
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=64), second_order=True)
    algorithm = AlgorithmConfig(head="linear", adapt="lora", train="adapted")
    attach = row_of("lora").attach
    attach(encoder.backbone, AdapterSettings(rank=algorithm.rank, targets=algorithm.targets, context_size=algorithm.context_size))
    frozen = EncoderLearner(encoder, algorithm, InnerConfig(steps=4), way=2)
    found = Footprint.of(frozen, 64)
    assert found.loss < 1.5 * Footprint.of(learner(), 64).loss  # LoRA's own activations are added
    encoder.half_products = True
    half = Footprint.of(frozen, 64)
    matrices = sum(value.numel() for value in encoder.backbone.encoder.parameters() if value.ndim == 2)
    assert half.loss < found.loss
    assert half.of_loss - found.of_loss == pytest.approx(2 * matrices, rel=0.2)


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse", "finite_difference", "first_order", "implicit", "reptile"])
def test_fewer_texts_at_a_time_need_less(mode):
    footprint = Footprint.of(learner(mode), 64)
    needs = [footprint.meta_gradient(LARGEST, use) for use in halvings(64)]
    assert needs == sorted(needs, reverse=True)
    assert needs[-1] < needs[0]


def test_training_the_encoder_on_the_examples_needs_more_and_in_parts_less():
    subject = learner("first_order", adapt="head", head="prototype")
    plain = Footprint.of(subject, 64).adaptation(LARGEST, ExecutionPlan())
    subject.inner = InnerConfig(steps=0, fit_head=True, fit_encoder=True)
    needs = [Footprint.of(subject, 64).adaptation(LARGEST, ExecutionPlan(part_tokens=tokens)) for tokens in (8192, 512, 64)]
    model = sum(value.nbytes for value in subject.model.parameters())
    assert needs[0] > needs[1] > needs[2] > plain + 3 * model  # Adam's moments and the parameters, of one fold at least


def test_graphs_are_given_up_before_parts():
    footprint = Footprint.of(learner(), 64)
    everything = footprint.meta_gradient(LARGEST, ExecutionPlan()) + 4 * footprint.stored(LARGEST) * LARGEST.support
    least = footprint.meta_gradient(LARGEST, ExecutionPlan())
    uses = halvings(64)
    assert [use.part_tokens for use in uses] == [8192, 4096, 2048, 1024, 512, 256, 128, 64, 64]
    assert [use.segments for use in uses] == [False] * 8 + [True]
    assert fit(footprint, LARGEST, everything + 1, uses) == ExecutionPlan()
    some = fit(footprint, LARGEST, (everything + least) / 2, uses)
    assert some.part_tokens == 8192
    assert some.graphs(LARGEST.support) == 2
    assert fit(footprint, LARGEST, least, uses).graphs(LARGEST.support) == 0
    fewer = fit(footprint, LARGEST, least - 1, uses)
    assert fewer.part_tokens < 640
    assert fit(footprint, LARGEST, least - 1, uses[:1]) is None
    assert fit(footprint, LARGEST, footprint.meta_gradient(LARGEST, uses[-1]) - 1, uses) is None


def test_segments_come_last_and_need_the_root_of_the_trajectory():
    footprint = Footprint.of(learner("exact_recomputed"), 64)
    footprint.learner.inner = replace(footprint.learner.inner, steps=100)
    *_, whole, segments = halvings(64)
    saved = footprint.meta_gradient(LARGEST, whole) - footprint.meta_gradient(LARGEST, segments)
    assert segments.segment(100) == 10 and saved == (100 - 19) * footprint.copy(LARGEST.support + LARGEST.query)
    assert fit(footprint, LARGEST, footprint.meta_gradient(LARGEST, whole) - 1, halvings(64)) == segments
    assert [segments.segment(steps) for steps in (0, 1, 2, 4, 5, 9, 10)] == [1, 1, 2, 2, 3, 3, 4]
    assert whole.smaller(64) == segments and segments.smaller(64) is None


def test_only_the_exact_mode_keeps_graphs():
    footprint = Footprint.of(learner("first_order"), 64)
    assert fit(footprint, LARGEST, 1e12, halvings(64)).graph_tokens == math.inf
    assert footprint.stored(LARGEST) == 0
