"""Dropout in any transformers model, with a rate of our own and masks that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Attributes in which attention modules keep a rate that is no module of its own.
_RATES = ("dropout", "attention_dropout", "dropout_rate")


def set_dropout(backbone: nn.Module, rate: float) -> None:
    """The rate of all dropout in the model, of hidden states and of attention, where it is on."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in _RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


@contextmanager
def dropout(backbone: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Dropout is on inside: the same seed, the same masks."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        backbone.train()
        try:
            yield
        finally:
            backbone.eval()
