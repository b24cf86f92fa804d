"""Components of every kind that another installed package registers."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from metatrain import plugins
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import make_inner_rule
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

HEAD = """
import numpy as np
import torch.nn.functional as F
from metatrain.evaluation.arms import ArmRow
from metatrain.evaluation.prediction import Prediction
from metatrain.gradient.meta_gradient import Mode
from metatrain.models.adapters import AdaptedRow
from metatrain.models.heads import PrototypeHead
from metatrain.tasks.files import Table
from metatrain.tasks.self_supervised import Generator
from metatrain.tasks.task import Task

def doubled(scale, labels):
    return PrototypeHead(2 * scale)

class Halves:
    "The prototypes and half of the sum of their squares."
    needs_support, reads_names, learns = True, False, False
    def __init__(self, scale, labels):
        self.scale = scale
    def learned(self, hidden, way):
        return {}
    def start(self, learned, empty, features, labels, names):
        one_hot = F.one_hot(labels, len(names)).to(features.dtype)
        means = (one_hot / one_hot.sum(0)).T @ features
        return {"weight": self.scale * means, "bias": -self.scale / 2 * means.square().sum(1)}

class Together:
    "Transductive prototypes: the support set, and the texts that are predicted together by their similarity to its means."
    needs_support, reads_names, learns, is_linear, reads_queries, constants = True, False, False, False, True, ("counts",)
    def __init__(self, scale, labels):
        pass
    def learned(self, hidden, way):
        return {}
    def start(self, learned, empty, features, labels, names):
        one_hot = F.one_hot(labels, len(names)).to(features.dtype)
        return {"sums": one_hot.T @ features, "counts": one_hot.sum(0)[:, None]}
    def logits(self, head, features):
        shares = (features @ (head["sums"] / head["counts"]).T).softmax(1)
        means = (head["sums"] + shares.T @ features) / (head["counts"] + shares.sum(0)[:, None])
        return 2 * features @ means.T - means.square().sum(1)

class Described:
    "Zero-shot: the encodings of the label names are the rows of the head, whatever the support set is."
    reads_label_encodings, learns = True, False
    def __init__(self, scale, labels):
        self.scale = scale
    def learned(self, hidden, way):
        return {}
    def start(self, learned, empty, features, labels, names, label_encodings):
        return {"weight": self.scale * label_encodings, "bias": empty["bias"]}

class Nearest:
    def predict(self, episode):
        labels = np.array([episode.support_labels[int(np.argmin([abs(len(text) - len(one)) for one in episode.support]))] for text in episode.query])
        return Prediction(labels, None, 0.0)

nearest_length = ArmRow("the class of the support text that is nearest in length", lambda learners: Nearest())
biases = AdaptedRow(r"\\.bias$")
no_curvature = Mode(None, separates_episodes=True)

def by_length(texts, settings, seed):
    texts = sorted(dict.fromkeys(texts), key=len)
    everywhere = np.ones(len(texts), dtype=bool)
    labels = (np.arange(len(texts)) >= len(texts) // 2).astype(np.int64)
    return [Task("short or long", tuple(texts), labels, ("short", "long"), everywhere, everywhere, settings.options["way"])]

lengths = Generator(by_length, "lengths")

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
    points = f"[{announced[1]}]\n{announced[2]} = {announced[3]}\n[metatrain.heads]\ndoubled = my_head:doubled\n"
    points += "halves = my_head:Halves\nbroken = my_head:nothing\ntogether = my_head:Together\ndescribed = my_head:Described\n"
    for group, name in (("arms", "nearest_length"), ("adapted", "biases"), ("meta_gradients", "no_curvature"), ("self_supervised", "lengths")):
        points += f"[metatrain.{group}]\n{name} = my_head:{name}\n"
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


ONE_OF_EACH = (
    *("train", "debug=fast", "inner.rule=sign_sgd", "algorithm.head=halves", "algorithm.adapt=biases", "algorithm.meta_gradient=no_curvature"),
    *("+tasks.self_supervised={lengths: {share: 0.5, options: {way: 2}}}", "evaluation.arms=[meta_trained,nearest_length]"),
    *("hardware.threads=1", "hydra.run.dir=run", "evaluation.episodes=1"),
)


def test_one_of_each_kind_in_a_run(installed, cli):
    found = cli(*ONE_OF_EACH)
    assert found.code == 0, found.err
    assert "lengths: 2 lengths in" in found.out
    assert list(json.loads(Path("run/results.json").read_text())["arms"]) == ["meta_trained", "nearest_length"]
    listed = cli("ls", "plugins").out
    assert all(name in listed for name in ("halves", "sign_sgd", "biases", "no_curvature", "nearest_length", "counted", "lengths"))
    assert "nearest in length" in cli("ls", "arms").out


def test_messages_name_what_packages_register(installed, cli):
    for setting, name in (
        ("algorithm.adapt=nothing", "biases"),
        ("algorithm.meta_gradient=nothing", "no_curvature"),
        ("evaluation.arms=[nothing]", "nearest_length"),
        ("+tasks.self_supervised={nothing: {share: 0.5}}", "lengths"),
        ("tasks.path=nothing:5", "counted:"),
    ):
        found = cli("train", setting)
        assert found.code == 2 and name in found.err, found.err


def learner_and_episodes(head: str) -> tuple[EncoderLearner, list[EncodedEpisode]]:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True, dtype=torch.float64)
    rng = np.random.default_rng(0)

    def texts(number: int) -> list[np.ndarray]:
        return [rng.integers(5, 50, size=6) for _ in range(number)]

    labels = np.array([0, 1, 0, 1])
    episodes = [EncodedEpisode(texts(4), labels, texts(4), labels, ["yes", "no"], seed, name_tokens=texts(2)) for seed in range(2)]
    return EncoderLearner(encoder, AlgorithmConfig(head=head), InnerConfig(steps=2, lr=0.1), way=None), episodes


@pytest.mark.parametrize(("head", "is_vectorised"), [("together", True), ("described", False)])
def test_heads_of_a_package_that_read_queries_or_label_encodings(installed, head, is_vectorised):
    learner, episodes = learner_and_episodes(head)
    found = learner.mean_gradient(episodes)
    planned = learner.with_plan(ExecutionPlan(vectorised=2, part_tokens=64))
    assert (len(planned.groups(episodes)) == 1) == is_vectorised
    for name, value in planned.mean_gradient(episodes).items():
        torch.testing.assert_close(value, found[name], rtol=1e-9, atol=1e-12)
    # The slope of the loss after adaptation, by differences.
    torch.manual_seed(1)
    direction = {name: torch.randn_like(value) / value.numel() ** 0.5 for name, value in learner.parameters.items()}

    def at(size: float) -> float:
        moved = learner.with_parameters({name: value + size * direction[name] for name, value in learner.parameters.items()})
        return float(np.mean([float(moved.outer_gradient(episode).loss_after) for episode in episodes]))

    slope = sum(float((value * direction[name]).sum()) for name, value in found.items())
    assert slope == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-5)


def test_a_transductive_head_is_not_finetuned(installed, cli, examples):
    found = cli("finetune", "checkpoint=tiny", "algorithm.head=together", f"data.train={examples}", "hydra.run.dir=tuned")
    assert found.code == 2 and len(found.err.strip().splitlines()) == 1
    assert "algorithm.head=together predicts the queries of an episode together" in found.err and "algorithm.head=prototype" in found.err


@pytest.mark.slow
@pytest.mark.parametrize("head", ["together", "described"])
def test_such_a_head_trains_and_is_evaluated(installed, cli, head):
    settings = ["debug=fast", f"algorithm.head={head}", "hardware.threads=1", "hydra.run.dir=run", "evaluation.episodes=1"]
    found = cli("train", *settings)
    assert found.code == 0, found.err
    again = cli(
        "evaluate", "checkpoint=run/model", "tasks=reviews", "evaluation.shots=[2]", "evaluation.episodes=1", "evaluation.queries=4", "hydra.run.dir=again"
    )
    assert again.code == 0, again.err
    assert (json.loads(Path("run/results.json").read_text())["arms"].keys() >= {"logistic_regression_with_names"}) == (head == "described")


def test_a_head_of_a_package_is_vectorised_with_the_gradients_of_sequential_episodes(installed):
    learner, episodes = learner_and_episodes("halves")
    sequential = learner.mean_gradient(episodes)
    together = learner.with_plan(ExecutionPlan(vectorised=2))
    assert [len(group) for group in together.groups(episodes)] == [2]
    vectorised = together.mean_gradient(episodes)
    for name, value in sequential.items():
        torch.testing.assert_close(vectorised[name], value, rtol=1e-9, atol=1e-12)
