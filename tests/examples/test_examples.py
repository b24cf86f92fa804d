"""The examples run, with a few meta-updates, and print what their heads say they print."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from metatrain.gradient import InnerLoop
from metatrain.gradient.meta_gradient import Method, meta_gradient

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = ["--updates", "2", "--test-tasks", "2"]


def head(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_begins_with_its_command_and_output_and_is_read_in_one_sitting(path):
    assert f"    python examples/{path.name}" in head(path) and re.search(r": +\d+\.\d", head(path))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("name", ["sinusoid", "characters", "hugging_face"])
def test_an_example_prints_the_lines_that_it_announces(name, monkeypatch, capsys, one_thread):
    path = ROOT / "examples" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *SMALL])
    runpy.run_path(str(path), run_name="__main__")
    announced = [line.strip() for line in head(path).splitlines() if re.match(r" +after +\d+ ", line)]

    def without_numbers(line: str) -> str:
        return re.sub(r"[\d.]+", "N", re.sub(r" +", " ", line))

    printed = capsys.readouterr().out.splitlines()
    assert [without_numbers(line) for line in printed] == [without_numbers(line) for line in announced] and announced


def test_a_module_and_losses_written_by_hand_have_the_same_meta_gradient():
    """The sinusoid, with `InnerLoop` on an `nn.Module` and with `EpisodeLosses` on a batch of tasks."""
    script = runpy.run_path(str(ROOT / "examples" / "sinusoid_vectorised.py"))
    episode = script["Sinusoids"](1, torch.Generator().manual_seed(1))
    theta = {name: value.double() for name, value in script["network"](torch.Generator().manual_seed(2)).items()}
    episode.x, episode.y = episode.x.double(), episode.y.double()
    by_hand = meta_gradient(episode, theta, script["RULE"], 3, Method())

    model = torch.nn.Sequential(*(torch.nn.Linear(*reversed(size)) if size else torch.nn.ReLU() for size in ((40, 1), (), (40, 40), (), (1, 40)))).double()
    with torch.no_grad():
        for layer, number in zip(model[::2], (1, 2, 3)):
            layer.weight.copy_(theta[f"w{number}"].T)
            layer.bias.copy_(theta[f"b{number}"][0])
    x, y = episode.x[0], episode.y[0]
    found = InnerLoop(model, lr=0.01, steps=3).meta_gradient(
        lambda net: (net(x[:10]) - y[:10]).square().mean(), lambda net: (net(x[10:]) - y[10:]).square().mean()
    )
    torch.testing.assert_close(found.query_loss, by_hand.query_loss)
    for layer, number in zip((0, 2, 4), (1, 2, 3)):
        torch.testing.assert_close(found.gradient[f"{layer}.weight"], by_hand.gradient[f"w{number}"].T, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.gradient[f"{layer}.bias"], by_hand.gradient[f"b{number}"][0], rtol=0, atol=1e-10)


def test_the_page_of_the_engine_shows_what_its_first_block_prints():
    page = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    code, output = re.findall(r"^```(?:python|text)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[:2]
    done = subprocess.run([sys.executable, "-c", code.replace("range(2000)", "range(300)")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.sub(r"\d+\.\d+", "N", done.stdout) == re.sub(r"\d+\.\d+", "N", output)


def test_examples_use_the_public_engine_only():
    for name in ("sinusoid", "characters", "hugging_face"):
        used = set(re.findall(r"^from (metatrain\S*) import", (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8"), re.MULTILINE))
        assert used == {"metatrain.gradient"}
