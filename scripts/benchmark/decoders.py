"""The same meta-gradient of a decoder by metatrain and by other libraries: mean over episodes, K inner steps of SGD on the matrices of LoRA.

The model has random weights in the shape of a published one, and LoRA of rank 8 on all linear layers, whose two factors both begin away from zero.
An episode has two classes with five support texts and five queries each; the loss is the cross-entropy of the label's tokens after a text. Each
contender maps nothing to the gradient of the low-rank matrices by their names in the model; in-context meta-training trains all weights instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import torch
from contenders import Gradient, Step
from language_model import Tokenizer, texts
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.language_learner import LanguageLearner
from metatrain.models.config import ModelConfig
from metatrain.models.language_model import LanguageModel
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens

# Settings of `LlamaConfig`.
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "llama_1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "small": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1024},
}
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK = 8
LABELS = [np.array([7, 0]), np.array([9, 11, 0])]  # tokens of the two labels
IGNORED = -100  # label of a position that the loss of transformers leaves out
Data = list[tuple[tuple[dict[str, Tensor]], tuple[dict[str, Tensor]]]]  # (support, queries) of each episode, each the inputs of `loss`


@dataclass(frozen=True)
class DecoderWork:
    """Which meta-gradient of which episodes."""

    shape: str
    steps: int
    episodes: int
    length: int = 64  # most tokens of a text
    rate: float = 0.01
    device: str = "cuda"


def episodes(work: DecoderWork) -> list[EncodedEpisode]:
    labels, made = np.arange(10) % 2, []
    targets = [LABELS[label] for label in labels]
    for seed in range(work.episodes):
        drawn = texts(np.random.default_rng(seed), 20, work.length // 2, work.length)
        made.append(EncodedEpisode(drawn[:10], labels, drawn[10:], labels, ("a", "b"), seed, TargetTokens(targets, targets, LABELS)))
    return made


def backbone(work: DecoderWork, lora: bool = True, attention: str = "eager") -> Any:
    """A Llama in this shape, in evaluation mode; `lora`: only the low-rank matrices require a gradient."""
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(work.device):
        made = LlamaForCausalLM._from_config(LlamaConfig(**SHAPES[work.shape], tie_word_embeddings=True), attn_implementation=attention).eval()
        if lora:
            peft.inject_adapter_in_model(peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(LINEAR)), made)
            for name, value in made.named_parameters():
                value.requires_grad_(".lora_" in name)
                if ".lora_B." in name:
                    nn.init.normal_(value, std=0.02)
    return made


def metatrain(work: DecoderWork, meta_gradient: str) -> Step:
    """Ours, through the learner that `metatrain train algorithm=maml_lora` uses."""
    algorithm = AlgorithmConfig(head="lm", adapt="lora", train="adapted", meta_gradient=meta_gradient, rank=RANK, targets=list(LINEAR))
    return _ours(work, algorithm, work.steps, lora=True)


def in_context(work: DecoderWork) -> Step:
    """Ours, through the learner of `algorithm=in_context`: each query is read after the support set; all weights are trained."""
    return _ours(work, AlgorithmConfig(head="in_context", adapt="head", meta_gradient="first_order"), 0, lora=False)


def _ours(work: DecoderWork, algorithm: AlgorithmConfig, steps: int, lora: bool) -> Step:
    attention = "eager" if algorithm.meta_gradient.startswith("exact") else "sdpa"
    config = ModelConfig(name=work.shape, max_length=work.length, max_target_length=8)
    model = LanguageModel(backbone(work, lora, attention), Tokenizer(), config)  # type: ignore[arg-type]
    learner, drawn = LanguageLearner(model, algorithm, InnerConfig(lr=work.rate, steps=steps)), episodes(work)

    def step() -> Gradient:
        return {name.removeprefix("language_model.backbone."): value for name, value in learner.mean_gradient(drawn).items()}

    return step


def batches(work: DecoderWork, separator: Sequence[int]) -> Data:
    """Return the inputs of transformers' own model: each text, the separator and its target, padded; labels are the target's tokens."""

    def inputs(read: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> dict[str, Tensor]:
        whole = [np.concatenate([text, separator, target]).astype(np.int64) for text, target in zip(read, targets)]
        wanted = [np.concatenate([np.full(len(ids) - len(target), IGNORED), target]) for ids, target in zip(whole, targets)]
        ids = pad_sequence([torch.from_numpy(each) for each in whole], batch_first=True)
        mask = pad_sequence([torch.ones(len(each), dtype=torch.int64) for each in whole], batch_first=True)
        labels = pad_sequence([torch.from_numpy(each) for each in wanted], batch_first=True, padding_value=IGNORED)
        return {name: value.to(work.device) for name, value in (("input_ids", ids), ("attention_mask", mask), ("labels", labels))}

    found = []
    for episode in episodes(work):
        assert episode.targets is not None  # `episodes` gives them
        found.append(((inputs(episode.support, episode.targets.support),), (inputs(episode.query, episode.targets.query),)))
    return found


def _of_others(work: DecoderWork, attention: str) -> tuple[Any, Data]:
    return backbone(work, attention=attention), batches(work, Tokenizer()("\n")["input_ids"])


def loss(model: Callable[..., Any], inputs: dict[str, Tensor]) -> Tensor:
    found: Tensor = model(**inputs).loss
    return found


def learn2learn(work: DecoderWork, folder: Path, first_order: bool = False) -> Step:
    """learn2learn's MAML on a model with LoRA of peft; frozen weights are left alone (`allow_nograd`)."""
    model, data = _of_others(work, "sdpa" if first_order else "eager")
    maml = contenders.learn2learn_maml(folder)(model, lr=work.rate, first_order=first_order, allow_nograd=True)
    return contenders.cloned(maml, model, data, loss, work.steps)


def torchopt(work: DecoderWork) -> Step:
    """TorchOpt's differentiable SGD on a model with LoRA of peft."""
    return contenders.recovered(*_of_others(work, "eager"), loss, work.steps, work.rate)


def plain(work: DecoderWork) -> Step:
    """All inner steps in one graph, as in a textbook."""
    return contenders.unrolled(*_of_others(work, "eager"), loss, work.steps, work.rate)


def makers(work: DecoderWork, folder: Path | None) -> dict[str, Callable[[], Step]]:
    """Functions that build each contender, by name; `folder`: of learn2learn, None: it is not there."""
    made: dict[str, Callable[[], Step]] = {"plain": lambda: plain(work)}
    if folder is not None:
        made["learn2learn"] = lambda: learn2learn(work, folder)
        made["learn2learn first order"] = lambda: learn2learn(work, folder, first_order=True)
    made["torchopt"] = lambda: torchopt(work)
    for mode in ("exact", "exact_recomputed"):
        made[mode] = partial(metatrain, work, mode)
        made[f"{mode}, TF32"] = made[mode]
    made["first order"] = partial(metatrain, work, "first_order")
    made["first order, TF32"] = made["first order"]
    made["in context"] = lambda: in_context(work)
    made["in context, TF32"] = made["in context"]
    return made
