"""What meta-gradients are compared with, and inner rules that move phi by more than the gradient."""

import torch

from metatrain.gradient.inner_rules import SGD, _Rates
from metatrain.gradient.meta_gradient import LEARNED


def unrolled(episode, theta, chosen, steps: int, weights=None, first_order: bool = False):
    """The meta-gradient by automatic differentiation of the whole inner loop at once; in first order, inner gradients are constants."""
    theta = {name: value.clone().requires_grad_() for name, value in theta.items()}
    start, fixed = episode.start(theta)
    learned = {name[len(LEARNED) :]: value for name, value in fixed.items() if name.startswith(LEARNED)}
    phi, state, total = {name: value * 1.0 for name, value in start.items()}, chosen.state(start), 0.0
    for k in range(steps):
        phi = {name: value if value.requires_grad else value.requires_grad_() for name, value in phi.items()}  # a head of zeros, say
        loss = sum(episode.support_parts(phi, fixed, k))
        gradients = dict(zip(phi, torch.autograd.grad(loss, list(phi.values()), create_graph=True)))
        if first_order:
            gradients = {name: gradient.detach() for name, gradient in gradients.items()}
        phi, state = chosen.update(phi, gradients, k, learned, state)
        if weights is not None:
            total = total + weights[k] * sum(episode.query_parts(phi, fixed))
    loss = sum(episode.query_parts(phi, fixed)) if weights is None else total
    found = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
    return {name: value for name, value in zip(theta, found) if value is not None}


class Decaying(SGD):
    """Weight decay beside the gradient: it moves phi by a share of phi, and is no rule that adds, whatever the class says that it is made from."""

    def update(self, adapted, gradients, step, learned, state):
        return {name: 0.9 * value - self.lr * gradients[name] for name, value in adapted.items()}, {}


class Anchored(_Rates):
    """A pull to where adaptation began, which is the state, and moves after phi; nothing is said of the update."""

    def state(self, adapted):
        return {f"anchor.{name}": value * 1.0 for name, value in adapted.items()}

    def update(self, adapted, gradients, step, learned, state):
        moved = {name: value - self.lr * gradients[name] - 0.2 * (value - state[f"anchor.{name}"]) for name, value in adapted.items()}
        return moved, {f"anchor.{name}": state[f"anchor.{name}"].lerp(value, 0.3) for name, value in adapted.items()}
