"""Architectures of the presets of language models, at tiny size: exact meta-gradients, LoRA, tied embeddings and their prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import TEXTS, save_preset

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.language_learner import LanguageLearner
from metatrain.models.adapted import attach
from metatrain.models.adapters import AdapterSettings
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.language_loading import load_language_model
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens

FAMILIES = {"llama": True, "qwen3": True, "gemma3_text": True, "t5": True}  # architectures of the presets, and whether their embeddings are tied
PROMPT = PromptConfig(instruction="Choose: {labels}.", text="Text: {text}", label="Label: {label}", end="\n\n")
LABELS = ["yes", "no no"]
STEP = 3e-3


def learner_of(family: str, folder, adapt: str) -> LanguageLearner:
    torch.manual_seed(0)
    config = ModelConfig(name=save_preset(family, folder), max_length=16, max_target_length=8)
    model, _ = load_language_model(config, True, torch.float64, (), prompt=PROMPT)
    attach(model.backbone, adapt, AdapterSettings(2, None, 1))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.copy_(0.1 * torch.randn_like(value))
    algorithm = AlgorithmConfig(head="lm", adapt=adapt, train="adapted" if adapt == "lora" else "all", meta_gradient="exact")
    return LanguageLearner(model, algorithm, InnerConfig(lr=0.1, steps=2))


def episode_of(learner: LanguageLearner) -> EncodedEpisode:
    tokens = learner.model.tokens()
    ids, names = tokens.encode(TEXTS), tokens.encode_targets.names(LABELS)
    targets = TargetTokens([names[label] for label in (0, 1)], [names[1], names[0]], names)
    return EncodedEpisode(ids[:2], np.array([0, 1]), ids[2:4], np.array([1, 0]), LABELS, 5, targets)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exact_gradient_of_lora_is_that_of_central_differences(family, tmp_path):
    learner = learner_of(family, tmp_path, "lora")
    episode = episode_of(learner)
    assert learner.parameters and all(".lora_A." in name or ".lora_B." in name for name in learner.parameters)
    gradient = learner.outer_gradient(episode).gradient
    torch.manual_seed(1)
    direction = {name: torch.randn_like(value) for name, value in learner.parameters.items()}
    size = sum(float(value.square().sum()) for value in direction.values()) ** 0.5
    direction = {name: value / size for name, value in direction.items()}
    losses = []
    for sign in (1, -1):
        moved = {name: value + sign * STEP * direction[name] for name, value in learner.parameters.items()}
        losses.append(float(learner.with_parameters(moved).outer_gradient(episode).loss_after))
    expected = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
    assert (losses[0] - losses[1]) / (2 * STEP) == pytest.approx(expected, rel=2e-3, abs=1e-7)  # norms are taken in float32


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_embeddings_are_one_parameter(family, tmp_path):
    learner = learner_of(family, tmp_path, "all")
    backbone = learner.model.backbone
    assert (backbone.get_input_embeddings().weight is backbone.get_output_embeddings().weight) == FAMILIES[family]
    names = [name for name in learner.parameters if name.endswith(("embed_tokens.weight", "lm_head.weight", "shared.weight"))]
    assert len(names) == (1 if FAMILIES[family] else 2)
    gradient = learner.outer_gradient(episode_of(learner)).gradient
    assert all(bool(gradient[name].any()) for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_each_pair_alone_beyond_a_sliding_window(family, tmp_path):
    learner = learner_of(family, tmp_path, "all")
    episode = episode_of(learner)
    if learner.model.decoder_only:
        learner = learner.prompted(reads_support=True)
    found = learner.query_logits(learner.initial, episode)
    model, prompts, choices = learner.load_model(), learner.functional.prompts(episode), episode.targets.choices
    assert min(map(len, prompts)) > 16  # twice the window
    with torch.no_grad():
        expected = [[-float(model(model.batch([prompt], [choice])).loss) for choice in choices] for prompt in prompts]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=1e-5, atol=1e-5)
