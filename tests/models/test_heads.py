import pytest
import torch

from metatrain.errors import UserError
from metatrain.models.heads import LinearHead, PrototypeHead, make_head

EMPTY = {"weight": torch.zeros(3, 4, dtype=torch.float64), "bias": torch.zeros(3, dtype=torch.float64)}
LABELS = torch.tensor([0, 1, 2, 0, 1, 1])


def test_prototype_head_is_softmax_over_squared_distances():
    torch.manual_seed(0)
    features, queries = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    rule = PrototypeHead(1.5)
    learned = {name: value.double() for name, value in rule.learned(4, None).items()}
    head = rule.start(learned, EMPTY, features, LABELS)
    means = torch.stack([features[label == LABELS].mean(0) for label in range(3)])
    expected = torch.softmax(-1.5 * torch.cdist(queries, means).square(), 1)
    found = torch.softmax(queries @ head["weight"].T + head["bias"], 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)  # the scale is kept as a float32 logarithm


def test_gradients_reach_the_support_features_and_the_scale():
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    head = PrototypeHead(1.0).start({"log_scale": scale}, EMPTY, features, LABELS)
    (head["weight"].sum() + head["bias"].sum()).backward()
    assert features.grad.abs().min() > 0
    assert scale.grad.abs() > 0


def test_a_learned_linear_head_needs_a_fixed_number_of_classes():
    with pytest.raises(UserError, match=r"episode\.way"):
        LinearHead().learned(4, None)
    with pytest.raises(UserError, match="2 classes, the task 3"):
        LinearHead().start(LinearHead().learned(4, 2), EMPTY, None, LABELS)


def test_unknown_head_and_scale():
    with pytest.raises(UserError, match="choose one of"):
        make_head("none", 1.0)
    with pytest.raises(UserError, match="head_scale"):
        make_head("zero", -1.0)
