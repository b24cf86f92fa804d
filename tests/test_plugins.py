"""Heads, rules and sources that another installed package announces."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import make_inner_rule

HEAD = """
from metatrain.models.heads import PrototypeHead
from metatrain.tasks.files import Table

def doubled(scale, labels):
    return PrototypeHead(2 * scale)

class Counted:
    "WHERE tasks, each of the same twelve texts with other labels."
    def __init__(self, where, columns):
        self.number = int(where)
    def files(self):
        return [f"task{number}" for number in range(self.number)]
    def read(self, file):
        texts = [f"{word} {file} {row}" for row in range(12) for word in ("good", "bad")]
        return Table(file, texts, ["yes", "no"] * 12, [file] * 24)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The example of the documentation, and a module of ours, as an installed package would be."""
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "howto.md").read_text(), re.MULTILINE | re.DOTALL))
    site = tmp_path / "site"
    (site / "my_rules-1.0.dist-info").mkdir(parents=True)
    (site / "my_rules-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rules\nVersion: 1.0\n")
    (site / "my_rules.py").write_text(blocks["python"])
    (site / "my_head.py").write_text(HEAD)
    announced = re.search(r'entry-points\."([\w.]+)"\]\n(\w+) = "(.*)"', blocks["toml"])
    points = f"[{announced[1]}]\n{announced[2]} = {announced[3]}\n[metatrain.heads]\ndoubled = my_head:doubled\nbroken = my_head:nothing\n"
    (site / "my_rules-1.0.dist-info" / "entry_points.txt").write_text(f"{points}[metatrain.sources]\ncounted = my_head:Counted\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return site


def test_the_rule_of_the_documentation_trains(installed, cli, tmp_path):
    rule = make_inner_rule(InnerConfig(rule="sign_sgd", lr=0.5))
    moved, state = rule.update({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, -0.1])}, 0, {}, {})
    assert moved["w"].tolist() == [0.5, 2.5] and state == {}
    found = cli("train", "debug=fast", "inner.rule=sign_sgd", "algorithm.head=doubled", "hardware.threads=1", "hydra.run.dir=run", "evaluation.episodes=1")
    assert found.code == 0, found.err
    assert json.loads(Path("run/results.json").read_text())["arms"]["meta_trained"]["mean"] >= 0
    assert json.loads(Path("run/model/adaptation.json").read_text())["algorithm"]["head"] == "doubled"


def test_a_source_of_tasks(installed, cli):
    found = cli("tasks", "tasks=files", "tasks.path=counted:5")
    assert found.code == 0, found.err
    assert sum(f"task{number}" in found.out for number in range(5)) == 5


def test_what_there_is_stands_in_the_message(installed, cli):
    for setting, name in (("inner.rule", "sign_sgd"), ("algorithm.head", "doubled")):
        found = cli("train", f"{setting}=nothing")
        assert found.code == 2 and name in found.err


def test_what_cannot_be_imported_is_said(installed):
    with pytest.raises(UserError, match=r"broken of metatrain.heads \(my_head:nothing\) cannot be imported"):
        plugins.load(plugins.HEADS, "broken")


def test_two_packages_with_one_name(installed):
    other = installed / "others-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[metatrain.inner_rules]\nsign_sgd = my_rules:SignSGD\n")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match="registered by several packages"):
        plugins.load(plugins.INNER_RULES, "sign_sgd")
