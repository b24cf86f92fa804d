"""A text problem on which second derivatives decide."""

import runpy

import pytest
import torch
from conftest import ROOT


@pytest.mark.slow
def test_the_exact_meta_gradient_learns_what_to_pass_over_and_the_first_order_one_does_not():
    script = runpy.run_path(str(ROOT / "scripts" / "second_order.py"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        accuracy = {mode: script["test_accuracy"](script["train"](0, mode), 0)[0] for mode in ("exact", "first_order")}
    finally:
        torch.set_num_threads(before)
    assert accuracy["exact"] > 0.95
    assert accuracy["first_order"] < 0.6
