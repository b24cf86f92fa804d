import pytest
import torch
import torch.nn.functional as F

from metatrain.errors import UserError
from metatrain.models.heads import CosineHead, GeneratedHead, LinearHead, PrototypeHead, RidgeHead, SharedHead, make_head

EMPTY = {"weight": torch.zeros(3, 4, dtype=torch.float64), "bias": torch.zeros(3, dtype=torch.float64)}
LABELS = torch.tensor([0, 1, 2, 0, 1, 1])
NAMES = ["cold", "hot", "mild"]


def test_prototype_head_is_softmax_over_squared_distances():
    torch.manual_seed(0)
    features, queries = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    rule = PrototypeHead(1.5)
    learned = {name: value.double() for name, value in rule.learned(4, None).items()}
    head = rule.start(learned, EMPTY, features, LABELS, NAMES)
    means = torch.stack([features[label == LABELS].mean(0) for label in range(3)])
    expected = torch.softmax(-1.5 * torch.cdist(queries, means).square(), 1)
    found = torch.softmax(queries @ head["weight"].T + head["bias"], 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)  # the scale is kept as a float32 logarithm


def test_gradients_reach_the_support_features_and_the_scale():
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    head = PrototypeHead(1.0).start({"log_scale": scale}, EMPTY, features, LABELS, NAMES)
    (head["weight"].sum() + head["bias"].sum()).backward()
    assert features.grad.abs().min() > 0
    assert scale.grad.abs() > 0


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    torch.manual_seed(0)
    features, queries = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    learned = {"log_scale": torch.tensor(0.0, dtype=torch.float64), "log_lambda": torch.tensor(0.3, dtype=torch.float64)}
    head = RidgeHead(1.0).start(learned, EMPTY, features, LABELS, NAMES)
    expected = Ridge(alpha=float(torch.tensor(0.3).double().exp()), fit_intercept=False).fit(features.numpy(), torch.eye(3)[LABELS].numpy())
    torch.testing.assert_close(queries @ head["weight"].T, torch.from_numpy(expected.predict(queries.numpy())), rtol=0, atol=1e-6)


def test_cosine_head_gives_cosines_to_the_class_means():
    torch.manual_seed(0)
    features, queries = (F.normalize(torch.randn(n, 4, dtype=torch.float64), dim=1) for n in (6, 5))
    head = CosineHead(3.0).start({"log_scale": torch.tensor(3.0, dtype=torch.float64).log()}, EMPTY, features, LABELS, NAMES)
    means = torch.stack([features[label == LABELS].mean(0) for label in range(3)])
    torch.testing.assert_close(queries @ head["weight"].T + head["bias"], 3 * F.cosine_similarity(queries[:, None], means[None], dim=2))


def test_a_shared_row_is_the_same_for_every_class_and_its_gradient_their_sum():
    row = torch.randn(4, dtype=torch.float64, requires_grad=True)
    head = SharedHead().start({"row": row}, EMPTY, None, LABELS, NAMES)
    upstream = torch.randn(3, 4, dtype=torch.float64)
    (head["weight"] * upstream).sum().backward()
    torch.testing.assert_close(row.grad, upstream.sum(0))


def test_a_generated_head_is_the_mean_of_each_classs_outputs_and_needs_no_class_order():
    torch.manual_seed(0)
    features = torch.randn(6, 4, dtype=torch.float64)
    rule = GeneratedHead()
    learned = {name: value.double() for name, value in rule.learned(4, None).items()}
    head = rule.start(learned, EMPTY, features, LABELS, NAMES)
    swapped = rule.start(learned, EMPTY, features, 2 - LABELS, NAMES)
    torch.testing.assert_close(head["weight"], swapped["weight"].flip(0))
    one = torch.tanh(features[3] @ learned["in.weight"].T + learned["in.bias"]) @ learned["out.weight"].T + learned["out.bias"]
    zero = torch.tanh(features[0] @ learned["in.weight"].T + learned["in.bias"]) @ learned["out.weight"].T + learned["out.bias"]
    torch.testing.assert_close(head["weight"][0], ((one + zero) / 2)[:-1])
    torch.testing.assert_close(head["bias"][0], ((one + zero) / 2)[-1])


def test_a_learned_linear_head_needs_a_fixed_number_of_classes():
    with pytest.raises(UserError, match=r"episode\.way"):
        LinearHead().learned(4, None)
    with pytest.raises(UserError, match="2 classes, but the task has 3"):
        LinearHead().start(LinearHead().learned(4, 2), EMPTY, None, LABELS, NAMES)


def test_unknown_head_and_scale():
    with pytest.raises(UserError, match="choose one of"):
        make_head("none", 1.0)
    with pytest.raises(UserError, match="head_scale"):
        make_head("zero", -1.0)
