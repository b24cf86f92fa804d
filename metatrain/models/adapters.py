"""Small parameters added to a model, so that adaptation has little to move: LoRA and IA3 (through `peft`), and a context vector.

All of them can be folded into the weights that they stand beside, which leaves a plain model that computes the same.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.models.pretrained import Backbone

# What the names of each kind's adapted parameters have in common.
KINDS = {"lora": r"\.lora_[AB]\.", "ia3": r"\.ia3_l\.", "context": r"\.context$"}
_ADAPTER = re.compile(r"\.context_map$|" + "|".join(KINDS.values()))
# Folding changes or removes these: a plain model and these together are the model with its adapters.
_LOST_BY_FOLDING = re.compile(r"\.lora_[AB]\.|\.ia3_l\.|\.base_layer\.|\.context_map$")


class ContextEmbedding(nn.Module):
    """Word embeddings beside which every token has the same further inputs, the context, as in CAVIA (Zintgraf et al. 2019).

    A linear map of the concatenation [embedding, context] is, up to one of the embedding alone, embedding + context_map context.
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


def attach(backbone: Backbone, kind: str, rank: int, targets: Sequence[str] | None, context_size: int) -> None:
    """Add adapters of a kind to a model, in place.

    Raises:
        UserError: `peft` is missing, or does not know where in this architecture they belong and `targets` does not say.
    """
    if kind == "context":
        backbone.set_input_embeddings(ContextEmbedding(backbone.get_input_embeddings(), context_size))
        return
    check_installed(kind)
    import peft

    wanted = list(targets) if targets else None
    # Scale 1: how far LoRA moves is what inner.lr says.
    if kind == "lora":
        config: peft.PeftConfig = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=wanted)
    else:
        config = peft.IA3Config(target_modules=wanted, feedforward_modules=[] if wanted else None)
    try:
        peft.inject_adapter_in_model(config, backbone)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"algorithm.adapt={kind}: {reason}; list modules of the model in algorithm.targets") from error


def folded(backbone: Backbone) -> Backbone:
    """The model itself if it has no adapters, else a plain copy that computes the same."""
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


def is_lost_by_folding(name: str) -> bool:
    """Return True if a parameter of this name cannot be recovered from the merged model."""
    return bool(_LOST_BY_FOLDING.search(name))


def check_installed(kind: str) -> None:
    """Raises: UserError: this kind of adapter needs `peft`, which is not installed."""
    if kind in ("lora", "ia3"):
        plugins.check_installed(f"algorithm.adapt={kind}", "peft", "peft")
