"""Dropout in any transformers model, with a configurable rate and masks determined by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Attributes of attention modules that hold a dropout rate as a number rather than as a module.
_RATES = ("dropout", "attention_dropout", "dropout_rate")


def set_dropout(backbone: nn.Module, rate: float) -> None:
    """Set the rate of all dropout in the model, in hidden states and in attention."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in _RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


@contextmanager
def dropout(backbone: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Enable dropout within the context; the same seed gives the same masks."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        backbone.train()
        try:
            yield
        finally:
            backbone.eval()
