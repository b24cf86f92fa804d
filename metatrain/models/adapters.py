"""Parameter-efficient adapters: LoRA and IA3 (through `peft`), and a context vector.

All of them can be merged into the weights of the model, which leaves a plain model that computes the same function.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metatrain.errors import UserError
from metatrain.models.backbone import Backbone


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of adapters (`algorithm.rank`, `algorithm.targets`, `algorithm.context_size`)."""

    rank: int
    targets: Sequence[str] | None
    context_size: int


@dataclass(frozen=True)
class AdaptedRow:
    """A choice of adapted parameters (`algorithm.adapt`): which parameters of the model adapt, and what else follows from it.

    Modules of an adapter that replace a module follow `peft`: the replaced module is `base_layer`, `merge()` folds the adapter into it, and
    `get_base_layer()` returns it.
    """

    pattern: str | None = None  # regular expression that is found in the names of adapted parameters
    select: Callable[[Sequence[str], int, str | None], list[str]] | None = None  # or: (names, last_layers, algorithm.pattern) -> adapted ones
    attach: Callable[[Backbone, AdapterSettings], None] | None = None  # add an adapter to a model, in place; None: the model's own parameters adapt
    head_adapts: bool = True
    model_adapts: bool = True  # False: only the head adapts
    starts_at_zero: bool = False  # the adapted parameters start at zero in each episode and are no meta-parameters
    needs_pattern: bool = False  # requires algorithm.pattern
    package: tuple[str, str] | None = None  # required module, and the extra that installs it
    reads: tuple[str, ...] | None = None  # settings of `algorithm` beside `train` that it reads: last_layers, pattern, rank, targets, context_size; None: all

    @property
    def adapts_everything(self) -> bool:
        """Return True if every parameter of the model adapts."""
        return self.pattern == ""


# Merging changes or removes these; a merged model together with them restores the model with its adapters.
_LOST_BY_FOLDING = re.compile(r"\.lora_[AB]\.|\.ia3_l\.|\.base_layer\.|\.context_map$")


class ContextEmbedding(nn.Module):
    """Word embeddings beside which every token has the same further inputs, the context, as in CAVIA (Zintgraf et al. 2019).

    A linear map of the concatenation [embedding, context] equals embedding + context_map context, up to a linear map of the embedding.
    """

    def __init__(self, embedding: nn.Embedding, size: int):
        super().__init__()
        self.embedding = embedding
        weight = embedding.weight
        self.context = nn.Parameter(weight.new_zeros(size))
        self.context_map = nn.Parameter(torch.randn(weight.shape[1], size).to(weight) * weight.detach().std())

    @property
    def weight(self) -> Tensor:
        return self.embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.embedding(input_ids) + F.linear(self.context, self.context_map)


def _attach_context(backbone: Backbone, settings: AdapterSettings) -> None:
    backbone.set_input_embeddings(ContextEmbedding(backbone.get_input_embeddings(), settings.context_size))


def _attach_lora(backbone: Backbone, settings: AdapterSettings) -> None:
    import peft

    # Scale 1, so that only inner.lr determines the step size of LoRA.
    _inject("lora", backbone, peft.LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=_targets(settings)))


def _attach_ia3(backbone: Backbone, settings: AdapterSettings) -> None:
    import peft

    targets = _targets(settings)
    _inject("ia3", backbone, peft.IA3Config(target_modules=targets, feedforward_modules=[] if targets else None))


def _targets(settings: AdapterSettings) -> list[str] | None:
    return list(settings.targets) if settings.targets else None


def _inject(kind: str, backbone: Backbone, config: Any) -> None:
    """Raises: UserError: `peft` does not know the target modules of this architecture, and `algorithm.targets` does not list them."""
    import peft

    try:
        peft.inject_adapter_in_model(config, backbone)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"algorithm.adapt={kind}: {reason}; list modules of the model in algorithm.targets") from error


_PEFT = ("peft", "peft")
ROWS = {
    "lora": AdaptedRow(r"\.lora_[AB]\.", attach=_attach_lora, package=_PEFT, reads=("rank", "targets")),
    "ia3": AdaptedRow(r"\.ia3_l\.", attach=_attach_ia3, package=_PEFT, reads=("targets",)),
    "context": AdaptedRow(r"\.context$", attach=_attach_context, head_adapts=False, starts_at_zero=True, reads=("context_size",)),
}
_ADAPTER = re.compile("|".join([r"\.context_map$", *(row.pattern for row in ROWS.values() if row.pattern)]))


def folded(backbone: Backbone) -> Backbone:
    """Return the model itself if it has no adapters, else a copy with merged adapters that computes the same function."""
    adapters = [(name, module) for name, module in backbone.named_modules() if isinstance(module, ContextEmbedding) or hasattr(module, "base_layer")]
    if not adapters:
        return backbone
    plain = copy.deepcopy(backbone)
    for name, _ in adapters:
        module = plain.get_submodule(name)
        if isinstance(module, ContextEmbedding):
            module.weight.data += F.linear(module.context, module.context_map).detach()
            plain.set_input_embeddings(module.embedding)
        else:
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    return plain


def is_adapter(name: str) -> bool:
    """Return True if a parameter of this name belongs to an adapter."""
    return bool(_ADAPTER.search(name))


def lost_by_folding(model: nn.Module) -> set[str]:
    """Return the names of the parameters that cannot be recovered from the merged model."""
    wrapped = tuple(f"{name}." for name, module in model.named_modules() if hasattr(module, "base_layer"))
    return {name for name, _ in model.named_parameters() if is_lost_by_folding(name) or name.startswith(wrapped)}


def is_lost_by_folding(name: str) -> bool:
    """Return True if a parameter of this name cannot be recovered from the merged model."""
    return bool(_LOST_BY_FOLDING.search(name))
