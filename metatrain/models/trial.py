"""Trial run of a loaded model on a short input before training: unsupported operations are reported early, in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from metatrain.errors import UserError

# Raised by architectures of transformers that lack a required input or cannot be differentiated.
OF_ARCHITECTURES = (AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


def check_runs(what: str, module: nn.Module, run: Callable[[], Tensor], second_order: bool) -> None:
    """Run a model, and differentiate its output once, or twice with `second_order`.

    what: name of the model in the message; run: returns a floating-point tensor that depends on the module's parameters.

    Raises:
        UserError: the architecture cannot do this, or the result is not finite.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.is_floating_point()]
    trained = [parameter.requires_grad for parameter in parameters]
    doing, remedy = "encode a single text", "choose another model"
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        output = run().square().sum()
        _check_finite(output)
        doing = "be differentiated"
        _gradient(output, parameters)
        if second_order:
            doing, remedy = "be differentiated twice", "choose a first-order method (algorithm.meta_gradient=first_order) or another model"
            vectors = [parameter for parameter in parameters if parameter.ndim == 1] or parameters  # small, and in every layer
            gradient = _gradient(run().square().sum(), vectors, create_graph=True)
            _gradient(sum((each.square().sum() for each in gradient), output.new_zeros(())), vectors)
    except OF_ARCHITECTURES as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{what} cannot {doing}: {reason}; {remedy}") from error
    finally:
        for parameter, before in zip(parameters, trained):
            parameter.requires_grad_(before)


@torch.no_grad()
def reads_padding(encode: Callable[[Sequence[np.ndarray]], Tensor], texts: Sequence[np.ndarray]) -> bool:
    """Return True if the encoding of a text depends on padding, as with convolutions or Fourier transforms over it.

    encode: from token ids to encodings, [texts, H]; texts: the first one is the longest.
    """
    alone = torch.cat([encode([text]) for text in texts])
    return not torch.allclose(encode(texts).float(), alone.float(), rtol=1e-4, atol=1e-5)


def _gradient(output: Tensor, parameters: list[nn.Parameter], create_graph: bool = False) -> list[Tensor]:
    found = torch.autograd.grad(output, parameters, create_graph=create_graph, allow_unused=True)
    reached = [each for each in found if each is not None]
    _check_finite(*reached)
    return reached


def _check_finite(*values: Tensor) -> None:
    if not all(bool(each.isfinite().all()) for each in values):
        raise ValueError("the result is not finite")
