"""A text problem on which second derivatives decide."""

import runpy

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_the_exact_meta_gradient_learns_what_to_pass_over_and_the_first_order_one_does_not(one_thread):
    script = runpy.run_path(str(ROOT / "examples" / "second_order.py"))
    accuracy = {mode: script["test_accuracy"](script["train"](0, mode), 0)[0] for mode in ("exact", "first_order")}
    assert accuracy["exact"] > 0.95
    assert accuracy["first_order"] < 0.6
