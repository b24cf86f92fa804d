"""Time a meta-gradient and in-context classification of a language model: python scripts/benchmark/language_model.py [--device cuda]

The model has the size of GPT-2 (124M parameters, random weights). A meta-gradient is of episodes of 10 support texts and 10 queries of 60 to 119 tokens, with
targets of two or three, and 5 inner steps of all parameters. Choices are five labels for each of 25 queries that come after a support set of five examples, as
`algorithm=in_context` has them: each pair of a query and a label read alone, and as metatrain reads them. Prints a line of JSON each: medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.language_learner import LanguageLearner
from metatrain.models.choices import losses_of_choices
from metatrain.models.config import ModelConfig
from metatrain.models.language_model import LanguageModel
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens

TARGETS = [np.array([7, 0]), np.array([9, 11, 0])]
CHOICES = [np.array([first, 20 + first, 0]) for first in range(7, 12)]


class Tokenizer:
    """Token ids are drawn, not read: all that is asked of it is how texts end."""

    eos_token_id = pad_token_id = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [5]}


def model(device: str, attention: str) -> LanguageModel:
    torch.manual_seed(0)
    backbone = GPT2LMHeadModel._from_config(GPT2Config(), attn_implementation=attention).to(device)
    return LanguageModel(backbone, Tokenizer(), ModelConfig(name="gpt2", max_length=128, max_target_length=8))  # type: ignore[arg-type]


def texts(rng: np.random.Generator, number: int, shortest: int, longest: int) -> list[np.ndarray]:
    return [rng.integers(5, 1000, size=rng.integers(shortest, longest)) for _ in range(number)]


def episode(seed: int) -> EncodedEpisode:
    drawn, labels = texts(np.random.default_rng(seed), 20, 60, 120), np.arange(10) % 2
    targets = [TARGETS[label] for label in labels]
    return EncodedEpisode(drawn[:10], labels, drawn[10:], labels, ("a", "b"), seed, TargetTokens(targets, targets, TARGETS))


def seconds(call: Callable[[], Any], device: str, rounds: int) -> list[float]:
    """Return the seconds of `rounds` calls, after one warm-up."""
    found = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begin)
    return found[1:]


def meta_gradient(mode: str, episodes: int, device: str, rounds: int) -> dict[str, Any]:
    algorithm = AlgorithmConfig(head="lm", adapt="all", meta_gradient=mode)
    learner = LanguageLearner(model(device, "sdpa" if mode == "first_order" else "eager"), algorithm, InnerConfig(lr=0.01, steps=5))
    drawn = [episode(seed) for seed in range(episodes)]
    return {"meta_gradient": mode, "episodes": episodes, "seconds": round(statistics.median(seconds(lambda: learner.mean_gradient(drawn), device, rounds)), 3)}


@torch.no_grad()
def choosing(device: str, rounds: int) -> dict[str, Any]:
    subject, rng = model(device, "sdpa"), np.random.default_rng(0)
    support = np.concatenate(texts(rng, 5, 10, 25))
    queries = [np.concatenate([support, query]) for query in texts(rng, 25, 10, 25)]

    def apart() -> torch.Tensor:
        return torch.stack([torch.cat([subject(subject.batch([query], [choice])).loss for choice in CHOICES]) for query in queries])

    def as_metatrain_does() -> torch.Tensor:
        return losses_of_choices(subject, queries, CHOICES, 8192)

    error = float((apart() - as_metatrain_does()).abs().max())
    # In turn, so that whatever else the machine does is shared.
    found = [[*seconds(apart, device, 1), *seconds(as_metatrain_does, device, 1)] for _ in range(rounds)]
    alone, read_once = (statistics.median(values) for values in zip(*found))
    return {
        "each pair alone": round(alone, 3),
        "read once": round(read_once, 3),
        "ratio": round(alone / read_once, 1),
        "difference": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--mode", action="append", help="a meta-gradient; may be given more than once")
    arguments = parser.parse_args()
    print(json.dumps(choosing(arguments.device, arguments.rounds)), flush=True)
    for mode in arguments.mode or ("exact_recomputed", "first_order"):
        print(json.dumps(meta_gradient(mode, arguments.episodes, arguments.device, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
