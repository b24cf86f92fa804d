"""Scores of the labels of a classification task under a language model (`prompt.scoring`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metatrain.models.choices import losses_of_choices
from metatrain.models.language_model import LanguageModel
from metatrain.models.reading import Reading

CONTENT_FREE = ("N/A", "", "[MASK]")  # texts without content (Zhao et al. 2021, section 5)


@torch.no_grad()
def label_scores(
    model: LanguageModel, reading: Reading, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int, rule: str | None = None
) -> Tensor:
    """Return the score of each label for each text, [texts, labels]; their softmax are the probabilities.

    texts, choices: token ids of texts and labels, without what is read around them. rule: instead of `prompt.scoring`; None: that.

    Raises:
        UserError: a prompt exceeds the positions of the model.
    """
    rule = rule or model.prompt_config.scoring
    if rule == "channel":
        return _channel(model, reading, texts, choices, part_tokens)
    found = -losses_of_choices(model, reading.of(model, texts), choices, part_tokens)
    if rule == "mean":
        return found / torch.tensor([len(choice) for choice in choices], device=found.device, dtype=found.dtype)
    if rule == "pmi":
        return found + losses_of_choices(model, reading.of(model, [_encoded(model, "")], examples=False), choices, part_tokens)
    if rule == "calibrated":
        free = reading.of(model, [_encoded(model, text) for text in CONTENT_FREE])
        prior = (-losses_of_choices(model, free, choices, part_tokens)).softmax(1).mean(0)
        return found.log_softmax(1) - prior.log()
    return found


def _encoded(model: LanguageModel, text: str) -> np.ndarray:
    """Return the token ids of a text that may be empty."""
    ids = model.tokens().encode([text])[0] if text else [] if model.prompt is not None else model.tokenizer("")["input_ids"]
    return np.array(ids, dtype=np.int64)


def _channel(model: LanguageModel, reading: Reading, texts: Sequence[np.ndarray], choices: Sequence[np.ndarray], part_tokens: int) -> Tensor:
    """Return log p(text | label), [texts, labels]."""
    assert model.prompt is not None  # the channel always has one
    labels = reading.of(model, [choice[:-1] for choice in choices])
    targets = [with_stop(model, text) for text in texts]
    return -losses_of_choices(model, labels, targets, part_tokens).T


def with_stop(model: LanguageModel, text: np.ndarray) -> np.ndarray:
    """Return a text as a target of the channel."""
    assert model.prompt is not None
    return np.append(text, model.prompt.stop).astype(np.int64)
