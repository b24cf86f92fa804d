"""Meta-trained models of the package: factors of low rank, and files that are not the original ones."""

import pytest
import torch

from metatrain.errors import UserError
from metatrain.models.bases import DIFFERENCE, compressed, expanded, read_base, write_base


def test_a_matrix_of_low_rank_and_a_vector_come_back_from_half_precision():
    torch.manual_seed(0)
    difference = {"a.weight": (torch.randn(40, 3) @ torch.randn(3, 50)) * 1e-3, "a.bias": torch.randn(40) * 1e-3, "small.weight": torch.randn(4, 4)}
    stored = compressed(difference, rank=3)
    assert {name: tuple(value.shape) for name, value in stored.items()} == {
        "a.weight.left": (40, 3),
        "a.weight.right": (3, 50),
        "a.bias": (40,),
        "small.weight": (4, 4),  # two factors would be larger
    }
    for name, value in expanded(stored).items():
        torch.testing.assert_close(value, difference[name], rtol=2e-3, atol=1e-5)


def test_the_factors_are_the_best_approximation():
    torch.manual_seed(0)
    matrix = torch.randn(30, 20, dtype=torch.float64)
    error = (expanded(compressed({"w": matrix}, rank=5))["w"] - matrix).square().sum()
    assert float(error) == pytest.approx(float(torch.linalg.svdvals(matrix)[5:].square().sum()), rel=1e-2)


def test_a_file_that_is_not_the_original_one_is_refused(tmp_path):
    write_base(tmp_path / "mine", {"base": "tiny"}, {"w": torch.ones(2)}, rank=1)
    settings, difference = read_base("mine", tmp_path)
    assert settings == {"base": "tiny"} and torch.equal(difference["w"], torch.ones(2))
    write_base(tmp_path / "nameless", {"format": 1}, {"w": torch.ones(2)}, rank=1)
    with pytest.raises(UserError, match="names no public model"):
        read_base("nameless", tmp_path)
    path = tmp_path / "mine" / DIFFERENCE
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="not the original file"):
        read_base("mine", tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_base("other", tmp_path)
