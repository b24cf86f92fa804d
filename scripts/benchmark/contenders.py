"""The same meta-gradient by metatrain and by other libraries: mean over episodes, K inner steps of SGD on all parameters.

The model is a BERT classifier: encoder, pooler and one linear layer, without dropout. Each contender maps (K, rate) to the
gradient by the classifier's parameter names.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

Gradient = dict[str, Tensor]
Step = Callable[[], Gradient]
Loss = Callable[..., Tensor]  # of a model and the inputs of a support set, or of queries
Inputs = tuple[dict[str, Tensor], Tensor]  # texts and their labels
OURS = ("exact", "exact_recomputed", "forward_over_reverse", "first_order")


@dataclass(frozen=True)
class Work:
    """Which meta-gradient of which episodes."""

    episodes: list[EncodedEpisode]
    steps: int
    rate: float = 0.01
    model: str = "minilm"  # or a directory with another BERT
    device: str = "cpu"


def metatrain(work: Work, meta_gradient: str = "exact", adapt: str = "all", dtype: torch.dtype = torch.float32, plan: ExecutionPlan | None = None) -> Step:
    """Ours, through the learner that `metatrain train` uses."""
    algorithm = AlgorithmConfig(head="linear", adapt=adapt, meta_gradient=meta_gradient)
    encoder, _ = load_encoder(ModelConfig(name=work.model, pooling="first"), second_order=True, dtype=dtype)
    learner = EncoderLearner(encoder.to(work.device), algorithm, InnerConfig(lr=work.rate, steps=work.steps), way=2).with_plan(plan or ExecutionPlan())
    weight, bias = head(encoder.hidden_size)
    learner.load({"head.weight": weight, "head.bias": bias})

    def step() -> Gradient:
        found = learner.mean_gradient(work.episodes)
        return {name.replace("encoder.backbone.", "bert.").replace("head.", "classifier."): value for name, value in found.items()}

    return step


def head(hidden: int) -> tuple[Tensor, Tensor]:
    """The classifier that all begin with."""
    return torch.randn(2, hidden, generator=torch.Generator().manual_seed(0)) * 0.02, torch.zeros(2)


def classifier(work: Work, attention: str = "eager") -> Any:
    """The same model for the others, as transformers has it."""
    from transformers import AutoModelForSequenceClassification

    from metatrain.models import minilm

    path = minilm.resolve()[0] if work.model == "minilm" else work.model
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2, attn_implementation=attention, dtype=torch.float32).eval()
    weight, bias = head(model.config.hidden_size)
    model.load_state_dict({"classifier.weight": weight, "classifier.bias": bias}, strict=False)
    return model.to(work.device)


def padded(texts: Sequence[np.ndarray], device: str) -> dict[str, Tensor]:
    batch = pad_sequence([torch.from_numpy(text) for text in texts], batch_first=True).to(device)
    return {"input_ids": batch, "attention_mask": (batch != 0).long()}  # 0 is BERT's [PAD]


def batches(work: Work) -> list[tuple[Inputs, Inputs]]:
    """((support inputs, labels), (query inputs, labels)) of each episode."""
    return [
        (
            (padded(episode.support, work.device), torch.from_numpy(episode.support_labels).to(work.device)),
            (padded(episode.query, work.device), torch.from_numpy(episode.query_labels).to(work.device)),
        )
        for episode in work.episodes
    ]


def loss(model: Callable[..., Any], inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    return F.cross_entropy(model(**inputs).logits, labels)


def gradients_of(model: nn.Module) -> Gradient:
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def plain(work: Work) -> Step:
    """All inner steps in one graph, as in a textbook."""
    return unrolled(classifier(work), batches(work), loss, work.steps, work.rate)


def unrolled(model: nn.Module, data: Sequence[tuple[Any, Any]], loss_of: Loss, steps: int, rate: float) -> Step:
    """The plain loop on the parameters that require a gradient; data: (support, queries) of each episode, each the inputs of `loss_of`."""
    theta = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def at(phi: Gradient, inputs: Sequence[Any]) -> Tensor:
        return loss_of(lambda **texts: functional_call(model, phi, (), texts), *inputs)

    def step() -> Gradient:
        start = {name: value.requires_grad_() for name, value in theta.items()}
        total = {name: torch.zeros_like(value) for name, value in start.items()}
        for support, query in data:
            phi = dict(start)
            for _ in range(steps):
                found = torch.autograd.grad(at(phi, support), list(phi.values()), create_graph=True)
                phi = {name: value - rate * gradient for (name, value), gradient in zip(phi.items(), found)}
            for value, gradient in zip(total.values(), torch.autograd.grad(at(phi, query) / len(data), list(start.values()))):
                value += gradient
        return total

    return step


def learn2learn_maml(folder: Path) -> Any:
    """learn2learn's class MAML; its modules are pure Python, and are loaded from `folder` without what the package builds."""
    for name, path in (("learn2learn", folder), ("learn2learn.algorithms", folder / "algorithms")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    from learn2learn.algorithms.maml import MAML

    return MAML


def learn2learn(work: Work, folder: Path, first_order: bool = False) -> Step:
    """learn2learn's MAML."""
    model = classifier(work, "sdpa" if first_order else "eager")
    return cloned(learn2learn_maml(folder)(model, lr=work.rate, first_order=first_order), model, batches(work), loss, work.steps)


def cloned(maml: Any, model: nn.Module, data: Sequence[tuple[Any, Any]], loss_of: Loss, steps: int) -> Step:
    """learn2learn's loop: a clone adapts to each episode; `data` as in `unrolled`."""

    def step() -> Gradient:
        model.zero_grad(set_to_none=True)
        for support, query in data:
            clone = maml.clone()
            for _ in range(steps):
                clone.adapt(loss_of(clone, *support))
            (loss_of(clone, *query) / len(data)).backward()
        return gradients_of(model)

    return step


def learn2learn_anil(work: Work, folder: Path) -> Step:
    """ANIL as learn2learn's examples have it: encodings of an episode once, a clone of the head adapts."""
    MAML = learn2learn_maml(folder)
    model, data = classifier(work, "sdpa"), batches(work)

    def step() -> Gradient:
        model.zero_grad(set_to_none=True)
        maml = MAML(model.classifier, lr=work.rate)
        for (inputs, labels), (queries, answers) in data:
            support, query = (model.bert(**each).pooler_output for each in (inputs, queries))
            clone = maml.clone()
            for _ in range(work.steps):
                clone.adapt(F.cross_entropy(clone(support), labels))
            (F.cross_entropy(clone(query), answers) / len(data)).backward()
        return gradients_of(model)

    return step


def higher(work: Work) -> Step:
    """higher's inner-loop context."""
    from higher import innerloop_ctx

    model, data = classifier(work), batches(work)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.rate)

    def step() -> Gradient:
        model.zero_grad(set_to_none=True)
        for support, query in data:
            with innerloop_ctx(model, optimizer, copy_initial_weights=False) as (clone, inner):
                for _ in range(work.steps):
                    inner.step(loss(clone, *support))
                (loss(clone, *query) / len(data)).backward()
        return gradients_of(model)

    return step


def torchopt(work: Work) -> Step:
    """TorchOpt's differentiable SGD."""
    return recovered(classifier(work), batches(work), loss, work.steps, work.rate)


def recovered(model: nn.Module, data: Sequence[tuple[Any, Any]], loss_of: Loss, steps: int, rate: float) -> Step:
    """TorchOpt's loop: the model adapts to each episode and is then set back; `data` as in `unrolled`."""
    import torchopt as library

    def step() -> Gradient:
        model.zero_grad(set_to_none=True)
        theta = dict(model.named_parameters())
        inner = library.MetaSGD(model, lr=rate)
        start, state = (library.extract_state_dict(each, by="reference") for each in (model, inner))
        for support, query in data:
            for _ in range(steps):
                inner.step(loss_of(model, *support))
            (loss_of(model, *query) / len(data)).backward()
            library.recover_state_dict(model, start)
            library.recover_state_dict(inner, state)
        return {name: value.grad for name, value in theta.items() if value.grad is not None}

    return step
