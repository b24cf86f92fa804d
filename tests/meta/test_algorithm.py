import pytest

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.schedule import method_at, multi_step_weights
from metatrain.models.config import ModelConfig


def test_weights_of_the_losses_along_the_way_add_up_to_one_and_end_at_the_last():
    for step in (0, 10, 50, 100, 1000):
        weights = multi_step_weights(5, step, 100)
        assert sum(weights) == pytest.approx(1.0)
    assert multi_step_weights(5, 0, 100) == pytest.approx([0.2] * 5)
    assert weights == pytest.approx([0.006] * 4 + [0.976])


def test_what_changes_during_meta_training():
    algorithm = AlgorithmConfig(first_order_until=10, multi_step_until=100)
    assert [method_at(algorithm, 5, step).mode for step in (0, 9, 10)] == ["first_order", "first_order", "exact"]
    assert method_at(algorithm, 5, 50).weights == pytest.approx([0.1] * 4 + [0.6])
    assert method_at(algorithm, 1, 50).weights is None  # one inner step has nothing along the way
    assert method_at(AlgorithmConfig(), 5, 0).weights is None


@pytest.mark.parametrize(
    ("algorithm", "inner", "words"),
    [
        ({"head": "cosine"}, {}, "model.normalize=true"),
        ({"head": "zero", "adapt": "body"}, {}, "algorithm.head=prototype"),
        ({"head": "shared", "adapt": "body"}, {}, "algorithm.head=prototype"),
        ({"head": "zero"}, {"steps": 0}, "algorithm.head=prototype"),
        ({"adapt": "pattern"}, {}, "algorithm.pattern"),
        ({"pattern": "x"}, {}, "algorithm.adapt=pattern"),
        ({"adapt": "pattern", "pattern": "("}, {}, "not a valid regular expression"),
        ({"meta_gradient": "implicit"}, {}, "algorithm.proximal"),
        ({"proximal": 1.0}, {}, "meta_gradient=implicit"),
        ({"meta_gradient": "reptile", "multi_step_until": 5}, {}, "multi_step_until"),
        ({"cg_steps": -1}, {}, "algorithm.cg_steps"),
        ({"adapt": "lora", "rank": 0}, {}, "algorithm.rank=0"),
        ({"adapt": "context", "context_size": 0, "head": "prototype"}, {}, "algorithm.context_size=0"),
        ({"adapt": "context"}, {}, "algorithm.head=prototype"),
        ({"adapt": "context", "head": "prototype", "meta_gradient": "reptile"}, {}, "always start at zero"),
        ({"train": "some"}, {}, "choose one of all, adapted"),
        ({"train": "adapted", "adapt": "head"}, {}, "nothing to train"),
        ({"head": "joint"}, {"steps": 0}, "inner.evaluation_steps"),
        ({"head": "joint", "adapt": "body"}, {}, "another algorithm.adapt"),
        ({"dropout": 1.0}, {}, "algorithm.dropout=1.0"),
        ({"dropout": 0.1, "dropout_in": "inner"}, {}, "choose one of both, support, query"),
        ({"information_penalty": -1.0}, {}, "algorithm.information_penalty=-1.0"),
        ({"information_penalty": 0.1, "meta_gradient": "reptile"}, {}, "query loss"),
        ({"meta_dropout": True, "meta_gradient": "first_order"}, {}, "meta_gradient=exact"),
    ],
)
def test_incompatible_choices_are_refused(algorithm, inner, words):
    with pytest.raises(UserError, match=words):
        check_algorithm(AlgorithmConfig(**algorithm), InnerConfig(**inner), ModelConfig())
