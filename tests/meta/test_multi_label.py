"""Episodes with several labels per text: losses, heads and meta-gradients against plain autograd, the fit of sigmoid heads, and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.algorithm import check_label_sets
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.label_fit import fit_labels
from metatrain.meta.label_set_fit import THRESHOLDS, fit_label_sets
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.text_losses import label_loss
from metatrain.meta.thresholds import choose_thresholds
from metatrain.models.head_rule import facts_of
from metatrain.models.heads import RULES, make_head
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.task import Task

NAMES = ("food", "service", "place")
LABELS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], dtype=np.int8)
QUERY_LABELS = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=np.int8)
SCALE, LR, HEAD_LR, STEPS = 2.0, 0.05, 0.4, 2


def episode(vocabulary: int, seed: int = 0, labels: np.ndarray = LABELS) -> EncodedEpisode:
    rng = np.random.default_rng(seed)

    def texts(count: int) -> list[np.ndarray]:
        return [rng.integers(5, vocabulary, size=rng.integers(2, 9)) for _ in range(count)]

    return EncodedEpisode(texts(len(labels)), labels, texts(len(QUERY_LABELS)), QUERY_LABELS, NAMES, seed, name_tokens=texts(3))


def learner(encoder, head: str = "prototype", fit_head: bool = False, **algorithm) -> EncoderLearner:
    torch.manual_seed(1)
    settings = AlgorithmConfig(head=head, head_scale=SCALE, **{"adapt": "all", "last_layers": 1, **algorithm})
    return EncoderLearner(encoder, settings, InnerConfig(lr=LR, head_lr=HEAD_LR, steps=STEPS, fit_head=fit_head), way=3)


def contrast(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The means of the texts with each label and without it, label by label; unknown ones (-1) belong to neither."""
    return tuple(torch.stack([features[labels[:, place] == value].mean(0) for place in range(3)]) for value in (1, 0))


def test_the_loss_is_binary_cross_entropy_of_the_known_labels():
    logits = torch.randn(5, 3, dtype=torch.float64)
    labels = torch.from_numpy(LABELS).long()
    expected = F.binary_cross_entropy(logits.sigmoid(), labels.double())
    torch.testing.assert_close(label_loss(logits, labels) / 5, expected)
    labels[0, 1] = -1
    known = F.binary_cross_entropy(logits.sigmoid(), labels.clamp(min=0).double(), reduction="none")
    torch.testing.assert_close(label_loss(logits, labels), (known.sum() - known[0, 1]) / 3)
    assert label_loss(torch.tensor([[-800.0, 800.0]]), torch.tensor([[1, 0]])) == 800  # finite where the sigmoid is 0 or 1


def test_prototype_logits_are_differences_of_distances():
    features, labels, x = torch.randn(5, 4).double(), torch.from_numpy(LABELS.copy()), torch.randn(6, 4).double()
    has, lacks = contrast(features, labels)
    empty = {"weight": torch.zeros(3, 4).double(), "bias": torch.zeros(3).double()}
    learned = {"log_scale": torch.tensor(SCALE).double().log()}
    found = make_head("prototype", SCALE).start(learned, empty, features, labels, NAMES)
    expected = SCALE * (torch.cdist(x, lacks).square() - torch.cdist(x, has).square())
    torch.testing.assert_close(F.linear(x, found["weight"], found["bias"]), expected)
    found = make_head("cosine", SCALE).start(learned, empty, features, labels, NAMES)
    torch.testing.assert_close(found["weight"], SCALE * (F.normalize(has, dim=1) - F.normalize(lacks, dim=1)))
    assert not found["bias"].any()
    labels[:, 2] = 1  # no text without the label: no evidence, p = 0.5 for every text
    found = make_head("prototype", SCALE).start(learned, empty, features, labels, NAMES)
    assert not found["weight"][2].any() and found["bias"][2] == 0 and found["weight"][0].any()


@pytest.mark.parametrize("part_tokens", [10_000, 12])
@pytest.mark.parametrize(("head", "names"), [("zero", False), ("prototype", False), ("prototype", True), ("cosine", False)])
def test_the_meta_gradient_is_that_of_the_unrolled_graph(encoder, head, names, part_tokens):
    subject = learner(encoder, head, label_names=names).with_plan(ExecutionPlan(part_tokens=part_tokens))
    given = episode(len(encoder.tokenizer))
    theta = {name: value.clone().requires_grad_() for name, value in subject.parameters.items()}

    def encode(parameters, texts):
        weights = {name[len("encoder.") :]: value for name, value in parameters.items() if name.startswith("encoder.")}
        return torch.cat([functional_call(subject.model, weights, (subject.model.batch([text]),)) for text in texts])

    def loss(parameters, texts, labels):
        logits = encode(parameters, texts) @ parameters["weight"].T + parameters["bias"]
        losses = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).clamp(min=0).double(), reduction="none")
        return (losses * torch.from_numpy(labels >= 0)).mean()

    texts, labels = given.support, LABELS.astype(np.int64)
    if names:  # a label name is an example of its own label only
        texts, labels = [*texts, *given.name_tokens], np.concatenate([labels, 2 * np.eye(3, dtype=np.int64) - 1])
    phi = {name: value.clone() for name, value in theta.items()}  # of its own, so that the inner gradient does not flow into the prototypes
    if head == "zero":
        phi |= {"weight": torch.zeros(3, subject.model.hidden_size).double(), "bias": torch.zeros(3).double()}
    else:
        has, lacks = contrast(encode(theta, texts), torch.from_numpy(labels))
        scale = theta["head.log_scale"].exp()
        if head == "cosine":
            phi |= {"weight": scale * (F.normalize(has, dim=1) - F.normalize(lacks, dim=1)), "bias": torch.zeros(3).double()}
        else:
            phi |= {"weight": 2 * scale * (has - lacks), "bias": scale * (lacks.square().sum(1) - has.square().sum(1))}
    for value in phi.values():
        if value.is_leaf:
            value.requires_grad_()
    for _ in range(STEPS):
        moving = [name for name in phi if name.startswith("encoder.") or name in ("weight", "bias")]
        gradients = torch.autograd.grad(loss(phi, texts, labels), [phi[name] for name in moving], create_graph=True, materialize_grads=True)
        phi |= {name: phi[name] - (HEAD_LR if name in ("weight", "bias") else LR) * each for name, each in zip(moving, gradients)}
    expected = loss(phi, given.query, QUERY_LABELS)
    gradients = torch.autograd.grad(expected, list(theta.values()), materialize_grads=True)
    found = subject.outer_gradient(given)
    assert float(found.loss_after) == pytest.approx(expected.item(), rel=1e-10)
    logits = encode(phi, given.query) @ phi["weight"].T + phi["bias"]
    hits = 2 * ((logits >= 0).numpy() & (QUERY_LABELS == 1)).sum()
    assert float(found.accuracy_after) == pytest.approx(hits / ((logits >= 0).sum().item() + QUERY_LABELS.sum()))
    total = {name: torch.zeros_like(value) for name, value in theta.items()}
    subject.add_gradient(total, found, 1.0)
    for (name, value), gradient in zip(total.items(), gradients):
        torch.testing.assert_close(value, gradient, rtol=1e-7, atol=1e-10, msg=name)


def test_other_executions_give_the_same_meta_gradient(encoder):
    """One pass over texts of all episodes (nothing of the encoder adapts), and vectorised episodes; those with one label are in other groups."""
    size = len(encoder.tokenizer)
    several = [episode(size, seed) for seed in range(2)]
    one = [replace(each, support_labels=np.array([0, 1, 2, 0, 1]), query_labels=np.array([0, 1, 2])) for each in several]
    mixed = [several[0], one[0], several[1], one[1]]
    for algorithm, groups in (({"adapt": "head"}, [4]), ({}, [1, 1, 1, 1])):
        subject = learner(encoder, **algorithm)
        assert [len(group) for group in subject.groups(mixed)] == groups
        expected = {name: torch.zeros_like(value) for name, value in subject.parameters.items()}
        for each in mixed:
            subject.add_gradient(expected, subject.outer_gradient(each), 0.25)
        vectorised = subject.with_plan(ExecutionPlan(vectorised=4))
        assert [len(group) for group in vectorised.groups([*several, *one])] == [2, 2]
        for found in (subject.mean_gradient(mixed), vectorised.mean_gradient([*several, *one])):
            for name, value in found.items():
                torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("names", [False, True])
def test_the_fitted_head_is_that_of_finetune(encoder, names):
    subject = learner(encoder, fit_head=True, adapt="head", label_names=names)
    rng = np.random.default_rng(2)
    given = episode(len(encoder.tokenizer), labels=(rng.random((30, 3)) < 0.5).astype(np.int8))
    given = replace(given, support=[np.array([5 + int(place) for place in row] + [20 + number]) for number, row in enumerate(given.support_labels)])
    targets = given.support_labels == 1
    encoded = subject.features(given.name_tokens) if names else None
    expected = fit_labels(subject.features(given.support), targets, encoded, np.ones(3, dtype=bool), 1, given.seed, lambda: None)
    parameters, loss = subject.adapt(given)
    assert torch.equal(parameters["head.weight"].float(), expected.weight) and torch.equal(parameters["head.bias"].float(), expected.bias)
    chosen = choose_thresholds(1 / (1 + np.exp(-expected.held_out)), targets, expected.fold_of, 0.5)
    assert parameters[THRESHOLDS].tolist() == pytest.approx(chosen.values.tolist()) and not chosen.is_default.all()
    logits = subject.logits(parameters, given.support)
    assert loss == pytest.approx(float(F.binary_cross_entropy_with_logits(logits, torch.from_numpy(targets).double())), rel=1e-5)
    few = replace(given, support=given.support[:1], support_labels=given.support_labels[:1])
    assert fit_label_sets(subject, subject.functional, few)[0][THRESHOLDS].tolist() == [0.5] * 3  # nothing can be held out


@pytest.mark.parametrize(
    ("algorithm", "inner", "why"),
    [
        ({"head": "ridge"}, {}, "algorithm.head=ridge does not learn from; choose algorithm.head=linear or zero or shared or prototype or cosine"),
        ({"head": "lm"}, {}, "algorithm.head=lm does not learn from"),
        ({"contrastive": "supervised"}, {}, "set algorithm.contrastive=null"),
        ({}, {"loss": "leave_one_out"}, "set inner.loss=support"),
        ({}, {"fit_head": True, "fit_encoder": True}, "set inner.fit_encoder=false"),
    ],
)
def test_methods_for_one_label_are_refused(algorithm, inner, why):
    pool = np.ones(2, dtype=bool)
    one = Task("one", ("x", "y"), np.array([0, 1]), ("a", "b"), pool, pool)
    several = replace(one, name="several", label_sets=np.eye(2, dtype=bool))
    settings = AlgorithmConfig(**algorithm), InnerConfig(**inner)
    check_label_sets([one], *settings)
    with pytest.raises(UserError, match="task 'several' has several labels per text") as error:
        check_label_sets([one, several], *settings)
    assert why in str(error.value) and "\n" not in str(error.value)


def test_heads_that_read_label_sets_start_from_them():
    """Every head that states it makes a linear head from labels [support, way]."""
    empty = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    for name in RULES:
        head = make_head(name, SCALE)
        if facts_of(head).reads_label_sets:
            found = head.start(head.learned(4, 3), empty, torch.randn(5, 4), torch.from_numpy(LABELS), NAMES)
            assert {key: value.shape for key, value in found.items()} == {"weight": (3, 4), "bias": (3,)}, name
