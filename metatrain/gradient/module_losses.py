"""The losses of an episode as functions of a module's parameters; the module itself is never changed.

- Buffers: every evaluation of a loss gets a copy of the module's buffers. BatchNorm in training mode normalises by the batch, and what it
  adds to its running statistics is dropped.
- Dropout: every inner step, and the query loss, has its own random numbers, and has the same ones whenever it is evaluated. They are drawn
  from PyTorch's generator once per episode, so that `torch.manual_seed` decides on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from metatrain.errors import UserError
from metatrain.gradient.meta_gradient import LEARNED
from metatrain.gradient.parameters import Parameters

Model = TypeVar("Model", bound=nn.Module)
LossFunction = Callable[[Model], Tensor | Iterable[Tensor]]  # the model to the loss, or to scalars that add up to it


class ModuleLosses:
    """The `EpisodeLosses` of a module and two loss functions.

    adapted: names of the parameters that adapt; second_order: whether the losses are differentiated twice, which the fused attention kernels
    of PyTorch do not support: attention then runs in its plain implementation.
    """

    def __init__(
        self,
        model: nn.Module,
        adapted: Sequence[str],
        support_loss: LossFunction[Any],
        query_loss: LossFunction[Any],
        steps: int,
        second_order: bool,
    ):
        _check_checkpointing(model)
        self._call = _Call(model)
        self._adapted = set(adapted)
        self._support_loss, self._query_loss = support_loss, query_loss
        self._second_order = second_order
        self._gpus = sorted({value.get_device() for value in (*model.parameters(), *model.buffers()) if value.is_cuda})
        *self._support_seeds, self._query_seed = torch.randint(2**31, (steps + 1,), device="cpu").tolist()

    def start(self, theta: Mapping[str, Tensor]) -> tuple[Parameters, Parameters]:
        """Split the meta-parameters into those that adapt and the others."""
        phi = {name: value for name, value in theta.items() if name in self._adapted}
        return phi, {name: value for name, value in theta.items() if name not in phi}

    def support_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor], step: int) -> Iterator[Tensor]:
        """The support loss of an inner step."""
        return self._parts("support_loss", self._support_loss, {**fixed, **phi}, self._support_seeds[step])

    def query_parts(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """The query loss."""
        return self._parts("query_loss", self._query_loss, {**fixed, **phi}, self._query_seed)

    def _parts(self, name: str, loss: LossFunction[Any], tensors: Mapping[str, Tensor], seed: int) -> Iterator[Tensor]:
        found = self._evaluate(loss, tensors, seed)
        if isinstance(found, Tensor):
            yield _scalar(name, found)
        elif isinstance(found, Iterable):
            parts = iter(found)  # of a generator: each part is computed when it is asked for, so each needs the parameters
            for number in count():
                part = self._evaluate(lambda model: next(parts, None), tensors, seed + number)
                if part is None:
                    return
                yield _scalar(name, part)
        else:
            raise UserError(f"{name} must return a scalar tensor or yield several; it returned {type(found).__name__}")

    def _evaluate(self, function: Callable[[Any], Any], tensors: Mapping[str, Tensor], seed: int) -> Any:
        """The value of a function of the model with these parameters."""
        replaced = {f"model.{name}": value for name, value in tensors.items() if not name.startswith(LEARNED)}
        replaced.update({f"model.{name}": value.detach().clone() for name, value in self._call.model.named_buffers()})
        with self._random_numbers(seed), sdpa_kernel(SDPBackend.MATH) if self._second_order else nullcontext():
            return functional_call(self._call, replaced, (function,))

    @contextmanager
    def _random_numbers(self, seed: int) -> Iterator[None]:
        """Seed PyTorch's generators, and put them back afterwards."""
        with torch.random.fork_rng(devices=self._gpus):
            torch.default_generator.manual_seed(seed)
            for gpu in self._gpus:
                torch.cuda.default_generators[gpu].manual_seed(seed)
            yield


class _Call(nn.Module):
    """A module as the argument of a function, so that `functional_call` replaces its tensors while the function runs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module], Any]) -> Any:
        return function(self.model)


def _scalar(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.dim():
        found = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{name} must return a scalar tensor or yield several; found {found}")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise UserError(f"{name} does not depend on the parameters; compute it with the model that it is given, outside torch.no_grad()")
    return value


def _check_checkpointing(model: nn.Module) -> None:
    """Refuse activation checkpointing of transformers: it recomputes after the parameters have been put back, from the wrong ones."""
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise UserError("the model checkpoints its activations; call model.gradient_checkpointing_disable() and choose mode='exact_recomputed'")
