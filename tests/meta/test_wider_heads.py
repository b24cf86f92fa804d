"""Heads that read label encodings, or compute their own logits: meta-gradients in float64 against plain loops with formulas of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.meta_gradient import MODES
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.text_losses import TextLosses
from metatrain.models import heads
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

STEPS, LR, HEAD_LR, SCALE, PROXIMAL = 2, 0.05, 0.4, 2.0, 5.0
TEXTS = ["a dull film", "a wonderful plot that never lets go", "the brakes are unpredictable", "fast", "cold soup and a long wait", "we came back twice"]
NAMES = ["not good at all", "very good"]


HEADS = ("matching", "feat", "feat_names", "relation", "soft_k_means")


@pytest.fixture(scope="module")
def episode(encoder) -> EncodedEpisode:
    ids = [np.array(encoder.tokenizer(text)["input_ids"]) for text in (*TEXTS, *NAMES)]
    return EncodedEpisode(ids[:4], np.array([0, 1, 1, 1]), ids[4:6], np.array([1, 0]), NAMES, name_tokens=ids[6:])


def learner(encoder: Encoder, head: str, adapt: str = "all", mode: str = "exact", rule: str = "sgd", steps: int = STEPS, **more) -> EncoderLearner:
    torch.manual_seed(1)
    algorithm = AlgorithmConfig(head=head, head_scale=SCALE, adapt=adapt, last_layers=1, meta_gradient=mode, **more)
    made = EncoderLearner(encoder, algorithm, InnerConfig(rule=rule, lr=LR, head_lr=HEAD_LR, steps=steps, rank=2), way=None)
    for name, value in made.parameters.items():
        if name in ("head.output", "head.log_weight"):
            value += 2.0 * torch.randn_like(value)  # their initial values hide what is multiplied by them
    return made


# What the papers say, written down again: (theta's head, class means, support encodings, labels, label encodings) to the adapting tensors, and their logits.


def attended(theta, elements):
    """Residual attention by the reference implementation of PyTorch."""
    queries, keys, values = (elements @ theta[f"head.{name}"] for name in ("queries", "keys", "values"))
    return elements + F.scaled_dot_product_attention(queries[None], keys[None], values[None])[0] @ theta["head.output"]


def distances(theta, means):
    scale = theta["head.log_scale"].exp()
    return {"weight": 2 * scale * means, "bias": -scale * (means**2).sum(1)}


def start_of(head, theta, support, labels, names):
    means = torch.stack([support[labels == label].mean(0) for label in range(2)])
    if head == "feat":
        return distances(theta, attended(theta, means))
    if head == "feat_names":
        found, weight = attended(theta, torch.cat([means, names])), theta["head.log_weight"].exp()
        counts = [int((labels == label).sum()) for label in range(2)]
        return distances(theta, torch.stack([(n * found[c] + weight * found[2 + c]) / (n + weight) for c, n in enumerate(counts)]))
    if head == "relation":
        return {"prototypes": means}
    if head == "soft_k_means":
        return {"sums": torch.stack([support[labels == label].sum(0) for label in range(2)])}
    return {"log_scale": theta["head.log_scale"] * 1.0}


def logits_of(head, theta, phi, encoded, support, labels):
    """`support`: encodings at theta, [n, H]."""
    if head in ("feat", "feat_names"):
        return encoded @ phi["weight"].T + phi["bias"]
    if head == "relation":
        rows = [[torch.relu(theta["head.of_class"] @ mean + theta["head.of_text"] @ one + theta["head.bias"]) for mean in phi["prototypes"]] for one in encoded]
        return torch.stack([torch.stack([each @ theta["head.out"] for each in row]) for row in rows])
    if head == "soft_k_means":
        counts = torch.tensor([int((labels == label).sum()) for label in range(2)], dtype=encoded.dtype)
        square = lambda centres: torch.stack([((encoded - centre) ** 2).sum(1) for centre in centres], dim=1)  # noqa: E731
        shares = torch.softmax(-square(phi["sums"] / counts[:, None]), 1)
        sums = [phi["sums"][c] + (shares[:, c, None] * encoded).sum(0) for c in range(2)]
        return -square([total / (counts[c] + shares[:, c].sum()) for c, total in enumerate(sums)])
    attention = torch.softmax(phi["log_scale"].exp() * F.cosine_similarity(encoded[:, None], support[None], dim=2), 1)
    return torch.stack([attention[:, labels == label].sum(1).log() for label in range(2)], dim=1)


def encode(subject, parameters, texts):
    """Encodings from padded batches of one text."""
    weights = {name[len("encoder.") :]: value for name, value in parameters.items() if name.startswith("encoder.")}
    return torch.cat([functional_call(subject.model, weights, (subject.model.batch([text]),)) for text in texts])


def begin(subject, episode, head, theta):
    """The tensors of the head that adapt, and the support encodings, at theta."""
    support = encode(subject, theta, episode.support)
    start = start_of(head, theta, support, torch.tensor(episode.support_labels), encode(subject, theta, episode.name_tokens))
    return {f"head.{name}": value for name, value in start.items()}, support


def objective(subject: EncoderLearner, episode: EncodedEpisode, head: str, theta, first_order: bool = False):
    """The query loss after adaptation as the textbook has it: every step in one graph."""
    labels, queries = torch.tensor(episode.support_labels), torch.tensor(episode.query_labels)
    start, support = begin(subject, episode, head, theta)
    parameters = {**theta, **{name: value * 1.0 for name, value in start.items()}}
    adapted = [*subject.functional.adapted, *(start if subject.functional.head_adapts else ())]
    parameters.update({name: parameters[name] * 1.0 for name in adapted})

    def loss(parameters, texts, expected):
        phi = {name[len("head.") :]: parameters[name] for name in start}
        return F.cross_entropy(logits_of(head, theta, phi, encode(subject, parameters, texts), support, labels), expected)

    for _ in range(subject.inner.steps):
        gradients = torch.autograd.grad(loss(parameters, episode.support, labels), [parameters[name] for name in adapted], create_graph=True)
        gradients = [each.detach() if first_order else each for each in gradients]
        parameters = {**parameters, **{n: parameters[n] - (HEAD_LR if n.startswith("head.") else LR) * g for n, g in zip(adapted, gradients)}}
    return loss(parameters, episode.query, queries)


def expected(subject, episode, head, first_order=False):
    theta = {name: value.clone().requires_grad_() for name, value in subject.parameters.items()}
    found = torch.autograd.grad(objective(subject, episode, head, theta, first_order), list(theta.values()), allow_unused=True)
    return {name: torch.zeros_like(theta[name]) if each is None else each for name, each in zip(theta, found)}


def check(subject, episode, head, first_order=False):
    found = subject.mean_gradient([episode])
    for name, value in expected(subject, episode, head, first_order).items():
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def near(found, wanted, share):
    """Each tensor is within a share of its norm, plus as much of a unit."""
    for name, value in wanted.items():
        assert (found[name] - value).norm() <= share * (1 + value.norm()), name


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse"])
@pytest.mark.parametrize("adapt", ["all", "head", *(pytest.param(adapt, marks=pytest.mark.slow) for adapt in ("body", "last_layers"))])
def test_exact_is_the_unrolled_gradient(encoder, episode, head, mode, adapt):
    check(learner(encoder, head, adapt, mode), episode, head)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("mode", ["exact", "first_order"])
def test_without_inner_steps(encoder, episode, head, mode):
    check(learner(encoder, head, "head", mode, steps=0), episode, head)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_first_order_takes_inner_gradients_for_constants(encoder, episode, head):
    check(learner(encoder, head, "all", "first_order"), episode, head, first_order=True)
    exact, first = expected(learner(encoder, head), episode, head), expected(learner(encoder, head), episode, head, first_order=True)
    assert max(float((exact[name] - first[name]).abs().max()) for name in exact) > 1e-5


@pytest.mark.parametrize("head", HEADS)
def test_exact_is_the_slope_of_the_query_loss(encoder, episode, head):
    subject = learner(encoder, head)
    torch.manual_seed(2)
    direction = {name: torch.randn_like(value) / value.numel() ** 0.5 for name, value in subject.parameters.items()}
    step = 1e-5

    def at(sign):
        moved = {name: (value + sign * step * direction[name]).requires_grad_() for name, value in subject.parameters.items()}
        return objective(subject, episode, head, moved).item()

    slope = sum(float((value * direction[name]).sum()) for name, value in subject.mean_gradient([episode]).items())
    assert slope == pytest.approx((at(1) - at(-1)) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_finite_differences_are_near(encoder, episode, head):
    found, exact = (learner(encoder, head, "all", mode).mean_gradient([episode]) for mode in ("finite_difference", "exact"))
    near(found, exact, 1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_reptile_goes_where_adaptation_went(encoder, episode, head):
    subject = learner(encoder, head, "all", "reptile")
    adapted, _ = subject.adapt(episode)
    theta = {name: value.clone().requires_grad_() for name, value in subject.parameters.items()}
    start, _ = begin(subject, episode, head, theta)
    phi = {**{name: theta[name] for name in subject.functional.adapted}, **start}
    total = sum(((value.detach() - adapted[name]) * value).sum() for name, value in phi.items())
    wanted = torch.autograd.grad(total, list(theta.values()), allow_unused=True)
    near(subject.mean_gradient([episode]), {name: value for name, value in zip(theta, wanted) if value is not None}, 1e-9)


@pytest.mark.parametrize("head", HEADS)
def test_implicit_is_the_dense_solution(encoder, episode, head):
    subject = learner(encoder, head, "pattern", "implicit", steps=5, proximal=PROXIMAL, cg_steps=200, pattern=r"layer\.1\.output\.LayerNorm\.bias")
    losses = TextLosses.of(subject.functional, episode, None)
    theta = {name: value.clone().requires_grad_() for name, value in subject.functional.view(subject.parameters, losses.rows).items()}
    start, fixed = losses.start(theta)
    adapted, _ = subject.adapted_from({name: value.detach() for name, value in theta.items()}, losses, None)
    names = list(start)
    flat = torch.cat([adapted[name].flatten() for name in names])

    def of(vector, fixed):
        parts = torch.split(vector, [start[name].numel() for name in names])
        phi = {name: part.view_as(start[name]) for name, part in zip(names, parts)}
        return sum(losses.support_parts(phi, fixed, 0)), sum(losses.query_parts(phi, fixed))

    held = {name: value.detach() for name, value in fixed.items()}
    hessian = torch.autograd.functional.hessian(lambda vector: of(vector, held)[0], flat)
    point = flat.clone().requires_grad_()
    support, query = of(point, fixed)
    direction = torch.linalg.solve(torch.eye(len(flat), dtype=flat.dtype) + hessian / PROXIMAL, torch.autograd.grad(query, point, retain_graph=True)[0])
    slope = torch.autograd.grad(support, point, create_graph=True)[0]
    through_start = sum((part.view_as(start[name]) * start[name]).sum() for name, part in zip(names, torch.split(direction, [start[n].numel() for n in names])))
    total = query - (slope * direction).sum() / PROXIMAL + through_start  # the point is a leaf of its own: theta is reached directly, by S's and by the start
    wanted = torch.autograd.grad(total, list(theta.values()), allow_unused=True)
    found = subject.outer_gradient(episode)
    assert found.residual < 1e-6 and found.damping == 1.0
    near(found.gradient, {name: value for name, value in zip(theta, wanted) if value is not None}, 1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rule", ["meta_sgd", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("lslr", "curvature", "adam", "alfa"))])
def test_learned_rates_fit_the_tensors_of_any_head(encoder, episode, head, rule):
    subject = learner(encoder, head, "all", "exact", rule)
    gradient = subject.mean_gradient([episode])
    assert all(bool(value.isfinite().all()) for value in gradient.values())
    assert not any(name.startswith("rule.head.") and name.split(".")[2] in subject.functional.head_facts.constants for name in gradient)
    if rule in ("meta_sgd", "lslr"):
        assert any(name.startswith("rule.head.") and value.abs().max() > 0 for name, value in gradient.items())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("adapt", ["all", pytest.param("last_layers", marks=pytest.mark.slow), "head"])
def test_texts_one_at_a_time_give_the_same(encoder, episode, head, adapt):
    subject = learner(encoder, head, adapt)
    whole, parts = (subject.with_plan(ExecutionPlan(part_tokens=tokens)).mean_gradient([episode]) for tokens in (4096, 1))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("head", HEADS)
def test_episodes_that_share_an_encoding_give_the_same(encoder, episode, head):
    subject = learner(encoder, head, "head")
    other = replace(episode, support=episode.query, support_labels=np.array([1, 0]), query=episode.support, query_labels=episode.support_labels)
    assert len(subject.groups([episode, other])) == 1
    alone = [expected(subject, each, head) for each in (episode, other)]
    for name, value in subject.mean_gradient([episode, other]).items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("adapt", ["all", "head"])
def test_vectorised_episodes_give_the_same_or_are_declined(encoder, episode, head, adapt):
    subject = learner(encoder, head, adapt).with_plan(ExecutionPlan(vectorised=2))
    other = replace(episode, support=episode.support[::-1], query=episode.query[::-1])
    sequential = learner(encoder, head, adapt).mean_gradient([episode, other])
    assert (len(subject.groups([episode, other])) == 1) == (head != "feat_names" or adapt == "head")  # it shares an encoding instead
    for name, value in subject.mean_gradient([episode, other]).items():
        torch.testing.assert_close(value, sequential[name], rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("adapt", ["all", "head"])
def test_adaptation_for_use_predicts_what_the_meta_gradient_saw(encoder, episode, head, adapt):
    subject = learner(encoder, head, adapt)
    parameters, _ = subject.adapt(episode)
    loss = -np.log(subject.probabilities(parameters, episode)[np.arange(2), episode.query_labels]).mean()
    assert loss == pytest.approx(float(subject.outer_gradient(episode).loss_after), rel=1e-9)
    small = subject.with_plan(ExecutionPlan(part_tokens=1))
    np.testing.assert_allclose(small.probabilities(parameters, episode), subject.probabilities(parameters, episode), rtol=1e-9)


@pytest.mark.parametrize("head", HEADS)
def test_heads_made_after_the_inner_steps(encoder, episode, head):
    torch.manual_seed(1)
    algorithm, inner = AlgorithmConfig(head=head, head_scale=SCALE, adapt="last_layers", last_layers=1), InnerConfig(loss="leave_one_out", lr=0.2, steps=STEPS)
    subject = EncoderLearner(encoder, algorithm, inner, way=None)
    parameters, _ = subject.adapt(episode)
    loss = -np.log(subject.probabilities(parameters, episode)[np.arange(2), episode.query_labels]).mean()
    assert loss == pytest.approx(float(subject.outer_gradient(episode).loss_after), rel=1e-9)
    direction = {name: torch.randn_like(value) / value.numel() ** 0.5 for name, value in subject.parameters.items()}

    def at(size):
        moved = subject.with_parameters({name: value + size * direction[name] for name, value in subject.parameters.items()})
        return float(moved.outer_gradient(episode).loss_after)

    slope = sum(float((value * direction[name]).sum()) for name, value in subject.mean_gradient([episode]).items())
    assert slope == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-5)


def test_a_head_that_reads_label_encodings_is_fitted(encoder, episode, monkeypatch):
    """The fit starts from the head of the adapted encoder; with infinite strength it is that head."""
    monkeypatch.setattr("metatrain.meta.head_fit.STRENGTHS", (float("inf"),))
    torch.manual_seed(1)
    algorithm = AlgorithmConfig(head="feat_names", head_scale=SCALE, adapt="last_layers", last_layers=1)
    subject = EncoderLearner(encoder, algorithm, InnerConfig(loss="leave_one_out", lr=0.2, steps=STEPS, fit_head=True), way=None)
    plain = EncoderLearner(encoder, algorithm, replace(subject.inner, fit_head=False), way=None).with_parameters(subject.parameters)
    expected, (fitted, fit) = plain.adapt(episode)[0], subject.fit_support(episode)
    torch.testing.assert_close(fitted["head.weight"] * fit.temperature, expected["head.weight"])


def test_only_a_transductive_head_sees_the_other_queries(encoder, episode):
    for head in HEADS:
        subject = learner(encoder, head, "head", steps=0)
        parameters, _ = subject.adapt(episode)
        alone = np.concatenate([subject.probabilities(parameters, replace(episode, query=[text])) for text in episode.query])
        assert np.allclose(alone, subject.probabilities(parameters, episode), rtol=1e-9) == (head != "soft_k_means")


def test_soft_k_means_learns_from_the_queries():
    """The support texts are at one end of their classes, so that prototypes misclassify half of the queries."""
    support, query = torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.6]] * 10 + [[3.0]] * 10)
    empty, labels = {"weight": torch.zeros(2, 1), "bias": torch.zeros(2)}, torch.arange(2)
    prototypes, refined = heads.make_head("prototype", 1.0), heads.make_head("soft_k_means", 1.0)
    linear = prototypes.start(prototypes.learned(1, None), empty, support, labels, ["a", "b"])
    assert (query @ linear["weight"].T + linear["bias"]).argmax(1).tolist() == [1] * 20
    assert refined.logits(refined.start({}, empty, support, labels, ["a", "b"]), query).argmax(1).tolist() == [0] * 10 + [1] * 10
    alone = refined.logits(refined.start({}, empty, support, labels, ["a", "b"]), query[:1])
    assert alone.argmax(1).tolist() == [1]


@pytest.mark.slow
@pytest.mark.parametrize("head", [pytest.param(head, marks=pytest.mark.nightly) if head in ("feat", "soft_k_means") else head for head in HEADS])
def test_it_learns_which_words_matter(head):
    """Each text has one of two words of its class, among noise; in half of the tasks the other two words are those of the classes."""
    torch.manual_seed(0)
    encoder = load_encoder(ModelConfig(name="tiny", normalize=True, max_length=16), second_order=False)[0]
    subject = EncoderLearner(encoder, AlgorithmConfig(head=head, head_scale=5.0, adapt="head"), InnerConfig(steps=0), way=None)
    rng = np.random.default_rng(0)

    def drawn() -> EncodedEpisode:
        words = rng.permutation(np.arange(20, 24).reshape(2, 2))
        labels = np.array([0, 1, 0, 1, 0, 1])
        texts = [np.concatenate([[2], rng.permutation([words[label][rng.integers(2)], *rng.integers(100, 400, 3)]), [3]]) for label in [*labels, *labels]]
        return EncodedEpisode(texts[:6], labels, texts[6:], labels, ["first kind", "second kind"], name_tokens=[np.array([2, 30, 3]), np.array([2, 31, 3])])

    held_out = [drawn() for _ in range(20)]

    def accuracy() -> float:
        return float(np.mean([(subject.predictions(subject.adapt(each)[0], each) == each.query_labels).mean() for each in held_out]))

    before = accuracy()
    for value in subject.parameters.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam(subject.parameters.values(), lr=2e-3)
    for _ in range(60):
        gradients = subject.mean_gradient([drawn() for _ in range(4)])
        for name, value in subject.parameters.items():
            value.grad = gradients[name].detach()
        optimizer.step()
    assert before < 0.8 and accuracy() > 0.95


def test_label_encodings_with_a_label_name_without_meaning(encoder, episode):
    subject = learner(encoder, "feat_names", "head", steps=0)
    named, partly = (replace(episode, names=names) for names in (NAMES, ["B2", "very good"]))
    gradients = [subject.mean_gradient([each]) for each in (named, partly)]
    assert any(not torch.allclose(gradients[0][name], gradients[1][name]) for name in gradients[0])
    nothing = subject.mean_gradient([replace(episode, names=["B2", "C3"])])
    assert nothing["head.log_weight"] == 0 and nothing["head.keys"].abs().max() > 0


def test_an_encoder_without_texts_has_no_label_encodings(encoder, episode):
    with pytest.raises(UserError, match="algorithm.head=feat_names reads label names, which an image model cannot"):
        learner(encoder, "feat_names").mean_gradient([replace(episode, name_tokens=())])


@pytest.mark.parametrize(
    ("algorithm", "inner", "words"),
    [
        ({"head": "matching"}, {"fit_head": True}, "algorithm.head=matching is not linear; set inner.fit_head=false"),
        ({"head": "feat_names", "label_names": True}, {}, "already reads the label names"),
    ],
)
def test_incompatible_choices_are_refused(algorithm, inner, words):
    with pytest.raises(UserError, match=words):
        check_algorithm(AlgorithmConfig(adapt="head", **algorithm), InnerConfig(**inner), ModelConfig(name="tiny"))


def test_facts_that_contradict_each_other(monkeypatch):
    for facts in ({"is_linear": False}, {"reads_queries": True}):
        monkeypatch.setitem(heads.RULES, "wrong", lambda scale, labels, facts=facts: type("Wrong", (heads.ZeroHead,), facts)())
        with pytest.raises(UserError, match="algorithm.head=wrong is declared wrongly"):
            heads.make_head("wrong", 1.0)


def test_every_mode_is_tested_here():
    assert set(MODES) == {"exact", "exact_recomputed", "forward_over_reverse", "first_order", "finite_difference", "implicit", "reptile"}
