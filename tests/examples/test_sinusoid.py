"""The benchmark that MAML was published with, small enough for every run of the tests."""

import runpy

import pytest
import torch
from conftest import ROOT


@pytest.mark.nightly
def test_maml_learns_to_fit_a_sinusoid_from_ten_points_in_one_step(one_thread):
    script = runpy.run_path(str(ROOT / "examples" / "sinusoid_vectorised.py"))
    means = [mean for mean, _ in script["test_errors"](script["train"](seed=0), seed=0)]
    assert means[1] <= 0.8
    assert means[0] > 2 > means[1] > means[5] > means[10]


def test_many_tasks_at_once_are_the_same_as_one_by_one():
    script = runpy.run_path(str(ROOT / "examples" / "sinusoid_vectorised.py"))
    many = script["Sinusoids"](3, torch.Generator().manual_seed(1))
    theta = script["network"](torch.Generator().manual_seed(2))
    Method, meta_gradient, rule = script["Method"], script["meta_gradient"], script["RULE"]
    together = meta_gradient(many, theta, rule, 2, Method()).gradient
    total = {name: torch.zeros_like(value) for name, value in theta.items()}
    for task in range(3):
        one = script["Sinusoids"](1, torch.Generator())
        one.x, one.y = many.x[task : task + 1], many.y[task : task + 1]
        for name, value in meta_gradient(one, theta, rule, 2, Method()).gradient.items():
            total[name] += value / 3
    for name, value in total.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5)
