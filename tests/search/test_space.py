import pytest

optuna = pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402

from metatrain.errors import UserError  # noqa: E402
from metatrain.search.space import distributions, overrides, split_sweeps  # noqa: E402


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("interval(0.1, 0.5)", FloatDistribution(0.1, 0.5)),
        ("tag(log, interval(1e-5, 1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("int(interval(1, 9))", IntDistribution(1, 9)),
        ("range(1, 9)", IntDistribution(1, 8)),
        ("range(0, 10, 5)", IntDistribution(0, 5, step=5)),
        ("choice(maml, anil)", CategoricalDistribution(["maml", "anil"])),
        ("1,3,5", CategoricalDistribution(["1", "3", "5"])),
        ("null,'a b'", CategoricalDistribution(["null", "'a b'"])),
    ],
)
def test_sweeps_are_distributions(sweep, expected):
    assert distributions({"some.key": sweep}) == {"some.key": expected}


@pytest.mark.parametrize("sweep", ["3", "interval(2, 1)", "tag(log, interval(0, 1))", "glob(*)", "interval(1", ""])
def test_what_is_no_sweep_is_refused_by_its_key(sweep):
    with pytest.raises(UserError, match=r"search\.space: some\.key="):
        distributions({"some.key": sweep})


def test_an_empty_space_is_refused():
    with pytest.raises(UserError, match=r"search\.space is empty.*search=rates"):
        distributions({})


def test_sweeps_are_distinguished_from_settings_and_flags():
    arguments = ["+experiment=x", "outer.lr=tag(log,interval(1e-5,1e-3))", "--cfg", "job", "seed=3", "algorithm=maml,anil", "text='a,b'"]
    sweeps, others = split_sweeps(arguments)
    assert sweeps == {"outer.lr": "tag(log,interval(1e-5,1e-3))", "algorithm": "maml,anil"}
    assert others == ["+experiment=x", "--cfg", "job", "seed=3", "text='a,b'"]


def test_proposals_are_settings_with_every_digit():
    assert overrides({"outer.lr": 0.1 + 0.2, "inner.steps": 3, "algorithm": "anil"}) == ["outer.lr=0.30000000000000004", "inner.steps=3", "algorithm=anil"]
