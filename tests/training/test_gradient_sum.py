"""Who takes which episode, and how gradients travel; that ranks get the same bits is shown in tests/faults/test_processes_of_a_run.py."""

from types import SimpleNamespace

import pytest
import torch

from metatrain.gradient.parameters import Gradient
from metatrain.meta.learner import Learner
from metatrain.run.ranks import Ranks
from metatrain.training.gradient_sum import GradientSum, _Packing, rounds


class Stub:
    """What a sum needs of a learner; an episode is its cost."""

    functional = SimpleNamespace(sparse=["encoder.words"])
    add_gradient = Learner.add_gradient

    def __init__(self, together: int = 1):
        self.parameters = {"encoder.words": torch.zeros(6, 2), "encoder.bias": torch.zeros(3), "head.scale": torch.zeros(())}
        self.together = together

    def cost(self, episode):
        return episode

    def groups(self, episodes):
        return [episodes[begin : begin + self.together] for begin in range(0, len(episodes), self.together)]

    def rows(self, episodes):
        return torch.tensor([0, 2, 3, 5])


COSTS = [3.0, 9.0, 1.0, 7.0, 5.0]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [[[1]], [[3]], [[4]], [[0]], [[2]]]),
        (2, [[[1], [3]], [[4], [0]], [[2]]]),
        (4, [[[1], [3], [4], [0]], [[2]]]),
        (8, [[[1], [3], [4], [0], [2]]]),
    ],
)
def test_costly_episodes_come_first_and_the_order_is_the_same_for_any_number_of_ranks(size, expected):
    found = rounds(Stub(), COSTS, Ranks(0, size), "ordered")
    assert found == expected
    assert [unit for of_round in found for unit in of_round] == [unit for of_round in expected for unit in of_round]


def test_a_shared_batch_is_one_unit_unless_bits_do_not_matter():
    assert rounds(Stub(together=5), COSTS, Ranks(0, 2), "ordered") == [[[0, 1, 2, 3, 4]]]
    assert rounds(Stub(together=5), COSTS, Ranks(0, 2), "fast") == [[[1, 0, 2], [3, 4]]]  # 13 and 12
    assert rounds(Stub(together=2), COSTS, Ranks(0, 2), "fast") == [[[1, 0], [3, 4]], [[2], []]]
    assert rounds(Stub(together=5), COSTS, Ranks(0, 1), "fast") == [[[0, 1, 2, 3, 4]]]


def test_a_gradient_travels_as_one_row_of_numbers():
    learner = Stub()
    packing = _Packing(learner, learner.rows([]))
    assert packing.length == 4 * 2 + 3 + 1
    part = Gradient({"encoder.words": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "head.scale": torch.tensor(5.0)}, rows=torch.tensor([2, 5]))
    numbers = packing.zeros(packing.length + 2)  # the last rank's slice may be longer than what is left
    packing.add(numbers, part)
    found = packing.read(numbers)
    expected = {name: torch.zeros_like(value) for name, value in learner.parameters.items()}
    learner.add_gradient(expected, part, 1.0)
    assert {name: value.tolist() for name, value in found.items()} == {name: value.tolist() for name, value in expected.items()}

    dense = packing.zeros(packing.length)
    packing.add(dense, Gradient(expected, None))
    assert torch.equal(dense, numbers[: packing.length])


def test_one_process_takes_the_mean_of_parts_with_other_rows():
    learner = Stub()
    total = GradientSum(learner, COSTS, Ranks(), "ordered")
    rows = torch.tensor([1, 2])
    one = Gradient({"encoder.words": torch.ones(2, 2)}, rows)
    other = Gradient({"encoder.words": torch.ones(1, 2), "encoder.bias": torch.ones(3)}, torch.tensor([2]))
    total.add([one], 1)
    total.add([one, Gradient({"head.scale": torch.tensor(4.0)}, rows)], 1)  # encoded together
    total.add([one, other], 1)  # of a unit that memory has run out for
    found = total.mean(4)
    assert found["encoder.words"][:, 0].tolist() == [0, 0.75, 1.0, 0, 0, 0]
    assert found["encoder.bias"].tolist() == [0.25] * 3 and found["head.scale"].item() == 1.0
