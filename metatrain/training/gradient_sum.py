"""Sum of the meta-gradients of a meta-batch over all ranks, and the assignment of episodes to ranks.

Rounding depends on the order of additions. With `ordered`, meta-gradients are added in an order that depends only on the episodes, so
that any number of ranks gets the same bits: each rank holds a slice of the sum, and adds to it that slice of every rank's meta-gradient.
Each round, with one meta-gradient per rank, exchanges as many bytes as an all-reduce. With `fast`, there is a single all-reduce per meta-batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metatrain.gradient.parameters import Gradient, Parameters, add_to
from metatrain.meta.learner import Learner
from metatrain.run.ranks import Ranks
from metatrain.tasks.encoded_episode import EncodedEpisode

Unit = list[int]  # positions in the meta-batch of episodes whose meta-gradients are computed in one pass


def rounds(learner: Learner, episodes: Sequence[EncodedEpisode], ranks: Ranks, reduce: str) -> list[list[Unit]]:
    """Return for each round one unit per rank; the last round may have fewer.

    Costly units come first, so that the units of a round take about the same time.
    """
    cost = {place: learner.cost(episode) for place, episode in enumerate(episodes)}
    if reduce == "fast" and ranks.size > 1:
        # Units then depend on the episodes of a rank, which is allowed here.
        shares = [_units(learner, episodes, places) for places in _shared_out(cost, ranks.size)]
        number = max(map(len, shares))
        return [[share[index] if index < len(share) else [] for share in shares] for index in range(number)]
    units = sorted(_units(learner, episodes, list(cost)), key=lambda unit: -sum(cost[place] for place in unit))
    return [units[begin : begin + ranks.size] for begin in range(0, len(units), ranks.size)]


def _shared_out(cost: Mapping[int, float], among: int) -> list[list[int]]:
    """Return shares of about equal cost: each episode, most costly first, goes to the share with the least cost (LPT, Graham 1969)."""
    shares: list[list[int]] = [[] for _ in range(among)]
    for place in sorted(cost, key=lambda place: -cost[place]):
        min(shares, key=lambda share: sum(cost[each] for each in share)).append(place)
    return shares


def _units(learner: Learner, episodes: Sequence[EncodedEpisode], places: Sequence[int]) -> list[Unit]:
    left = iter(places)
    return [[next(left) for _ in group] for group in learner.groups([episodes[place] for place in places])]


class GradientSum:
    """Running sum of meta-gradients, round by round."""

    def __init__(self, learner: Learner, episodes: Sequence[EncodedEpisode], ranks: Ranks, reduce: str):
        self._learner, self._ranks, self._ordered = learner, ranks, reduce == "ordered"
        if ranks.size == 1:
            self._sum = {name: torch.zeros_like(value) for name, value in learner.parameters.items()}
        else:
            self._packing = _Packing(learner, learner.rows(episodes))
            length = self._packing.length
            self._numbers = self._packing.zeros(
                math.ceil(length / ranks.size) if self._ordered else length
            )  # ordered: this rank's slice of the sum; fast: the sum of its own episodes

    def add(self, parts: Sequence[Gradient], units: int) -> None:
        """Add the meta-gradients of one round: `parts` of this rank's unit of work, empty if it has none; `units`: number of units in the round.

        A collective call: all ranks must make it.
        """
        if self._ranks.size == 1:
            self._learner.add_gradient(self._sum, _joined(self._learner, parts), 1.0)
            return
        numbers = self._packing.zeros(self._ranks.size * len(self._numbers)) if self._ordered else self._numbers
        for part in parts:
            self._packing.add(numbers, part)
        if self._ordered:
            self._ranks.add_slices(self._numbers, numbers, units)

    def mean(self, episodes: int) -> Parameters:
        """Return the sum divided by the number of episodes. A collective call: all ranks must make it."""
        if self._ranks.size == 1:
            torch._foreach_mul_(list(self._sum.values()), 1.0 / episodes)
            return self._sum
        if self._ordered:
            numbers = self._ranks.join_slices(self._numbers)
        else:
            numbers = self._numbers
            self._ranks.add_up(numbers)
        return self._packing.read(numbers.mul_(1.0 / episodes))


class _Packing:
    """Packing of a gradient into one vector, with only those rows of the word embeddings that occur in the meta-batch."""

    def __init__(self, learner: Learner, rows: Tensor | None):
        self._parameters, self._rows = learner.parameters, torch.zeros(0) if rows is None else rows
        self._sparse = learner.functional.sparse if rows is not None else ()
        self._shapes = {name: (len(self._rows), *value.shape[1:]) if name in self._sparse else value.shape for name, value in self._parameters.items()}
        self.length = sum(map(math.prod, self._shapes.values()))

    def zeros(self, length: int) -> Tensor:
        return next(iter(self._parameters.values())).new_zeros(length)

    def add(self, numbers: Tensor, part: Gradient) -> None:
        """Add a gradient to the numbers, in place."""
        for name, place in self._places(numbers).items():
            if name not in part.gradient:
                continue
            value = part.gradient[name]
            if name not in self._sparse:
                place.add_(value)
            elif part.rows is None:
                place.add_(value.index_select(0, self._rows))
            else:
                place.index_add_(0, torch.searchsorted(self._rows, part.rows), value)

    def read(self, numbers: Tensor) -> Parameters:
        """Return the gradient of all parameters, as views of the numbers."""
        found = self._places(numbers)
        for name in self._sparse:
            found[name] = torch.zeros_like(self._parameters[name]).index_copy_(0, self._rows, found[name])
        return found

    def _places(self, numbers: Tensor) -> Parameters:
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), numbers[: self.length].split(sizes))}


def _joined(learner: Learner, parts: Sequence[Gradient]) -> Gradient:
    """Return the sum of the meta-gradients of a unit."""
    if all(part.rows is parts[0].rows for part in parts):
        total: Parameters = {}
        for part in parts:
            add_to(total, part.gradient)
        return Gradient(total, parts[0].rows)
    total = {name: torch.zeros_like(value) for name, value in learner.parameters.items()}
    for part in parts:
        learner.add_gradient(total, part, 1.0)
    return Gradient(total, None)
