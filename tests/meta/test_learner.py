"""The learner on a tiny BERT in float64 against a plain unrolled autograd graph."""

import copy
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from oracles import unrolled as unrolled_losses
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.parameters import dot
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import SHARED_TOKENS, ExecutionPlan
from metatrain.meta.strategies import OuterGradient
from metatrain.meta.text_losses import TextLosses
from metatrain.models.adapted import attach
from metatrain.models.adapters import ROWS as ADAPTERS
from metatrain.models.adapters import AdapterSettings
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

STEPS, LR, HEAD_LR = 3, 0.05, 0.4
TEXTS = ["a dull film", "a wonderful plot that never lets go", "the brakes are unpredictable", "fast", "cold soup and a long wait", "we came back twice"]
NAMES = ["no", "yes"]
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")  # of ModernBERT, beyond a small vocabulary by default
ADAPT = ("all", "body", "last_layers", "head", "layer_norm", "pattern")
METHODS = [
    *((head, adapt, "sgd") for head in ("prototype", "linear") for adapt in ADAPT),
    *((head, "all", "sgd") for head in ("zero", "shared", "joint", "cosine", "ridge", "generated")),
    *((head, adapt, "sgd") for head in ("prototype", "linear") for adapt in ADAPTERS),
    *(("prototype", "all", rule) for rule in ("meta_sgd", "lslr", "curvature", "alfa")),  # Adam divides rounding errors by rounding errors
]


def learner(encoder: Encoder, head: str, adapt: str, meta_gradient: str = "exact", rule: str = "sgd", **more) -> EncoderLearner:
    torch.manual_seed(1)
    pattern = r"attention.*query" if adapt == "pattern" else None
    algorithm = AlgorithmConfig(head=head, head_scale=2.0, adapt=adapt, last_layers=1, pattern=pattern, meta_gradient=meta_gradient, **more)
    if adapt in ADAPTERS:
        encoder = copy.deepcopy(encoder)
        attach(encoder.backbone, adapt, AdapterSettings(rank=2, targets=None, context_size=3))
    made = EncoderLearner(encoder, algorithm, InnerConfig(rule=rule, lr=LR, head_lr=HEAD_LR, steps=STEPS, rank=2), way=2, labels=("maybe", "no"))
    for name, value in made.parameters.items():
        if "lora_B" in name:
            value.normal_(std=0.1)  # a fresh one is zero and would hide what is multiplied by it
        if "generator.out.weight" in name or name.endswith(".decay"):
            value.add_(0.02 * torch.randn_like(value))  # zeros would hide what they multiply
        if "context_map" in name:
            value *= 30  # so that three short steps of a context matter
    return made


@pytest.fixture(scope="module")
def episode(encoder) -> EncodedEpisode:
    ids = [np.array(encoder.tokenizer(text)["input_ids"]) for text in TEXTS]
    return EncodedEpisode(ids[:4], np.array([0, 1, 1, 0]), ids[4:], np.array([1, 0]), NAMES)


def unrolled(subject: EncoderLearner, episode: EncodedEpisode) -> tuple[dict[str, torch.Tensor], float]:
    """The meta-gradient as the textbook has it: every step in one graph, over whole parameters and padded batches of one text."""
    theta = {name: value.clone().requires_grad_() for name, value in subject.parameters.items()}

    def encode(parameters, texts):
        weights = {name[len("encoder.") :]: value for name, value in parameters.items() if name.startswith("encoder.")}
        return torch.cat([functional_call(subject.model, weights, (subject.model.batch([text]),)) for text in texts])

    def loss(parameters, texts, labels):
        logits = encode(parameters, texts) @ parameters["head.weight"].T + parameters["head.bias"]
        return F.cross_entropy(logits, torch.tensor(labels))

    zeros = {"weight": torch.zeros(2, subject.model.hidden_size, dtype=torch.float64), "bias": torch.zeros(2, dtype=torch.float64)}
    learned = {name[len("head.") :]: value for name, value in theta.items() if name.startswith("head.")}
    head = subject.functional.head.start(learned, zeros, encode(theta, episode.support), torch.tensor(episode.support_labels), NAMES)
    # Copies within the graph: an inner gradient is taken at (encoder, head), not through the head's making from the encoder.
    start = {**theta, **subject.functional.reset, **{f"head.{name}": value for name, value in head.items()}}
    parameters = {name: (value if value.requires_grad else value.requires_grad_()) * 1.0 for name, value in start.items()}
    adapted = [*subject.functional.adapted, *(["head.weight", "head.bias"] if subject.algorithm.adapt not in ("body", "context") else [])]
    rates = {name[len("rule.") :]: value for name, value in theta.items() if name.startswith("rule.")}
    state = subject.rule.state({name: parameters[name] for name in adapted})
    for step in range(STEPS):
        support = loss(parameters, episode.support, episode.support_labels)
        gradients = torch.autograd.grad(support, [parameters[name] for name in adapted], create_graph=True)
        phi = {name: parameters[name] for name in adapted}
        moved, state = subject.rule.update(phi, dict(zip(adapted, gradients)), step, rates, state)
        parameters = {**parameters, **moved}
    query = loss(parameters, episode.query, episode.query_labels)
    found = torch.autograd.grad(query, list(theta.values()), allow_unused=True)
    return {name: torch.zeros_like(theta[name]) if g is None else g for name, g in zip(theta, found)}, query.item()


def dense(subject: EncoderLearner, episode: EncodedEpisode):
    """The learner's own meta-gradient, with zeros where it has none."""
    part = subject.outer_gradient(episode)
    total = {name: torch.zeros_like(value) for name, value in subject.parameters.items()}
    subject.add_gradient(total, part, 1.0)
    return total, part


@pytest.mark.parametrize(("head", "adapt", "rule"), METHODS)
@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse"])
def test_exact_equals_the_unrolled_graph(encoder, episode, head, adapt, rule, mode):
    subject = learner(encoder, head, adapt, mode, rule)
    found, part = dense(subject, episode)
    expected, loss = unrolled(subject, episode)
    assert part.loss_after == pytest.approx(loss, abs=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)
    assert sum(float(value.abs().sum()) for value in found.values()) > 0


@pytest.mark.parametrize(("head", "adapt", "rule"), METHODS)
def test_first_order_differs_from_exact(encoder, episode, head, adapt, rule):
    exact, _ = dense(learner(encoder, head, adapt, rule=rule), episode)
    first, _ = dense(learner(encoder, head, adapt, "first_order", rule), episode)
    distance = sum(float((exact[name] - first[name]).square().sum()) for name in exact) ** 0.5
    assert distance > 1e-3 * sum(float(value.square().sum()) for value in exact.values()) ** 0.5


def other_models():
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    return {
        "distilbert": lambda size: transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=size, dim=16, n_layers=2, n_heads=2, hidden_dim=32)),
        "gpt2": lambda size: transformers.GPT2Model(transformers.GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2)),
        "llama": lambda size: transformers.LlamaModel(transformers.LlamaConfig(vocab_size=size, **small)),
        "t5": lambda size: transformers.T5Model(transformers.T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)),
        "albert": lambda size: transformers.AlbertModel(transformers.AlbertConfig(vocab_size=size, embedding_size=8, **small)),  # its texts are padded
        "mpnet": lambda size: transformers.MPNetModel(transformers.MPNetConfig(vocab_size=size, **small)),
        "bert, first token": lambda size: transformers.BertModel(transformers.BertConfig(vocab_size=size, **small)),
        "modernbert": lambda size: transformers.ModernBertModel(transformers.ModernBertConfig(vocab_size=size, **small, **dict.fromkeys(SPECIAL, 0))),
        "deberta-v2": lambda size: transformers.DebertaV2Model(
            transformers.DebertaV2Config(vocab_size=size, relative_attention=True, pos_att_type=["p2c", "c2p"], **small)
        ),
    }


@pytest.fixture(scope="module", params=["distilbert", "gpt2", "llama", "t5", "albert", "mpnet", "bert, first token", "modernbert", "deberta-v2"])
def other(request, tmp_path_factory) -> tuple[str, Encoder, EncodedEpisode]:
    """A small random model of another architecture, loaded as a user's would be, and an episode."""
    from metatrain.models.tiny import tokenizer

    folder, words = tmp_path_factory.mktemp("model"), tokenizer()
    torch.manual_seed(0)
    other_models()[request.param](len(words)).save_pretrained(folder)
    words.save_pretrained(folder)
    pooling = {"pooling": "cls", "normalize": True} if request.param == "bert, first token" else {}
    encoder, _ = load_encoder(ModelConfig(name=str(folder), max_length=16, **pooling), second_order=True, dtype=torch.float64)
    ids = [np.array(words(text)["input_ids"]) for text in TEXTS]
    return request.param, encoder, EncodedEpisode(ids[:4], np.array([0, 1, 1, 0]), ids[4:], np.array([1, 0]), NAMES)


def precision_of(architecture: str, expected: dict[str, torch.Tensor]) -> float:
    """T5 computes its norms in float32, whatever the dtype, so two ways to the same number differ by its rounding."""
    return 1e-5 * max(float(value.abs().max()) for value in expected.values()) if architecture == "t5" else 1e-9


def check_forward_over_reverse(architecture: str, subject: EncoderLearner, episode: EncodedEpisode, expected) -> None:
    if architecture == "llama":
        with pytest.raises(UserError, match="silu.*choose exact_recomputed"):
            dense(subject, episode)
        return
    found, _ = dense(subject, episode)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=precision_of(architecture, expected), msg=name)


def test_exact_modes_agree_on_other_architectures(other):
    architecture, encoder, episode = other
    expected, _ = unrolled(learner(encoder, "prototype", "all"), episode)
    for mode in ("exact", "exact_recomputed"):
        found, _ = dense(learner(encoder, "prototype", "all", mode), episode)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=f"{mode} {name}")
    check_forward_over_reverse(architecture, learner(encoder, "prototype", "all", "forward_over_reverse"), episode, expected)


def unrolled_with_the_same_draws(subject: EncoderLearner, episode: EncodedEpisode, first_order: bool = False):
    """The meta-gradient in one graph, over the learner's own losses: other texts in a batch would mean other masks."""
    losses = TextLosses.of(subject.functional, episode, episode.seed)
    gradient = unrolled_losses(losses, subject.functional.view(subject.parameters, losses.rows), subject.rule, STEPS, first_order=first_order)
    total = {name: torch.zeros_like(value) for name, value in subject.parameters.items()}
    subject.add_gradient(total, OuterGradient(gradient, losses.rows, 0, 0, 0, 0, None), 1.0)
    return total


def test_exact_modes_agree_with_dropout_on_other_architectures(other):
    architecture, encoder, episode = other
    expected = unrolled_with_the_same_draws(learner(encoder, "prototype", "all", dropout=0.3), episode)
    without, _ = unrolled(learner(encoder, "prototype", "all"), episode)
    assert dot(expected, without) < 0.95 * (dot(expected, expected) * dot(without, without)) ** 0.5
    for mode in ("exact", "exact_recomputed"):
        found, _ = dense(learner(encoder, "prototype", "all", mode, dropout=0.3), episode)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=f"{mode} {name}")
    check_forward_over_reverse(architecture, learner(encoder, "prototype", "all", "forward_over_reverse", dropout=0.3), episode, expected)


@pytest.mark.parametrize(("head", "adapt", "rule"), METHODS)
def test_first_order_takes_inner_gradients_for_constants_and_nothing_else(encoder, episode, head, adapt, rule):
    """The head's making from the support set, and learned rates, get their gradients in first order too."""
    subject = learner(encoder, head, adapt, "first_order", rule)
    expected = unrolled_with_the_same_draws(subject, episode, first_order=True)
    found, _ = dense(subject, episode)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)


NOISES = [
    {"dropout": 0.3},
    {"dropout": 0.3, "dropout_in": "support"},
    {"dropout": 0.3, "dropout_in": "query"},
    {"meta_dropout": True},
    {"information_penalty": 0.05},
    {"dropout": 0.2, "meta_dropout": True, "information_penalty": 0.05},
]


@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("adapt", ["all", "last_layers", "lora"])
@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse"])
def test_exact_modes_agree_with_noise(encoder, episode, adapt, noise, mode):
    subject = learner(encoder, "prototype", adapt, mode, **noise)
    expected = unrolled_with_the_same_draws(subject, episode)
    found, _ = dense(subject, episode)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)
    for name, value in expected.items():
        assert value.abs().sum() > 0 or not name.startswith("noise."), name


def test_noise_is_of_the_episode_and_the_step(encoder, episode):
    subject = learner(encoder, "prototype", "all", dropout=0.3)
    losses = [TextLosses.of(subject.functional, episode, seed) for seed in (0, 0, 1, None)]
    phi, fixed = losses[0].start(subject.functional.view(subject.parameters, losses[0].rows))

    def support(of: TextLosses, step: int) -> float:
        return float(sum(of.support_parts(phi, fixed, step)))

    assert support(losses[0], 0) == support(losses[1], 0)
    assert len({support(losses[0], 0), support(losses[0], 1), support(losses[2], 0), support(losses[3], 0)}) == 4
    assert support(losses[3], 0) == support(losses[3], 1)


def test_adaptation_for_use_has_no_noise(encoder, episode):
    noisy = learner(encoder, "prototype", "all", dropout=0.3, meta_dropout=True, information_penalty=0.1)
    found, _ = noisy.adapt(episode)
    expected, _ = learner(encoder, "prototype", "all").adapt(episode)
    assert torch.equal(noisy.logits(found, episode.query), noisy.logits(expected, episode.query))


def test_dropout_does_not_change_the_random_state(encoder, episode):
    before = torch.get_rng_state()
    learner(encoder, "prototype", "all", dropout=0.3)
    torch.set_rng_state(before)
    dense(learner(encoder, "zero", "all", dropout=0.3), episode)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    learner(encoder, "zero", "all", dropout=0.3)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("adapt", ["lora", "ia3", "context", "layer_norm", "last_layers"])
def test_the_outer_loop_may_train_only_the_adapted_parameters(encoder, episode, adapt):
    everything, some = learner(encoder, "prototype", adapt), learner(encoder, "prototype", adapt, train="adapted")
    trained = {name for name in some.parameters if name.startswith("encoder.")}
    adapted = {name for name in some.functional.adapted if name not in some.functional.reset}
    assert trained == adapted | {name for name in everything.parameters if name.endswith("context_map")}
    whole, part = dense(everything, episode)[0], dense(some, episode)[0]
    for name, value in part.items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-12, msg=name)


def test_a_context_starts_at_zero_and_is_no_meta_parameter(encoder, episode):
    subject = learner(encoder, "prototype", "context")
    (name,) = subject.functional.adapted
    assert name not in subject.parameters and not subject.initial[name].any()
    parameters, _ = subject.adapt(episode)
    assert parameters[name].any() and not subject.initial[name].any()
    assert torch.equal(parameters["head.weight"], subject.adapt(episode, steps=0)[0]["head.weight"])
    dense(subject, episode)
    assert not subject.initial[name].any()


def test_the_first_step_of_a_fresh_lora_moves_one_of_its_matrices(encoder, episode):
    """B = 0, so A has no gradient until B has moved; both are meta-trained, so that this holds of the first meta-update alone."""
    subject = learner(encoder, "prototype", "lora")
    for name, value in subject.parameters.items():
        if "lora_B" in name:
            value.zero_()
    parameters, _ = subject.adapt(episode, steps=1)
    moved = {name for name in subject.functional.adapted if not torch.equal(parameters[name], subject.parameters[name])}
    assert moved == {name for name in subject.functional.adapted if "lora_B" in name}
    assert all(name in subject.parameters for name in subject.functional.adapted)


def test_a_joint_head_has_rows_of_the_labels_it_knows(encoder, episode):
    subject = learner(encoder, "joint", "all")
    parameters, _ = subject.adapt(episode, steps=0)
    assert torch.equal(parameters["head.weight"][0], subject.parameters["head.label.no"][:-1])
    assert not parameters["head.weight"][1].any()
    found, _ = dense(subject, episode)
    assert found["head.label.no"].any() and not found["head.label.maybe"].any()


def test_exact_agrees_with_finite_differences(encoder, episode):
    subject = learner(encoder, "prototype", "all")
    found, _ = dense(subject, episode)
    generator = torch.Generator().manual_seed(3)
    direction = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in subject.parameters.items()}

    def loss_at(step: float) -> float:
        moved = learner(encoder, "prototype", "all")
        for name, value in moved.parameters.items():
            value.add_(direction[name], alpha=step)
        return float(moved.outer_gradient(episode).loss_after)

    step = 1e-6
    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert sum(float((found[name] * direction[name]).sum()) for name in found) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("head", ["zero", "prototype"])
def test_the_part_that_does_not_adapt_may_run_once_or_in_each_step(encoder, episode, head):
    once, each = learner(encoder, head, "last_layers"), learner(encoder, head, "last_layers")
    assert once.functional.first_adapted_layer == 1
    each.functional.first_adapted_layer = 0
    for name, value in dense(once, episode)[0].items():
        torch.testing.assert_close(value, dense(each, episode)[0][name], rtol=0, atol=1e-12)


def test_adaptation_equals_what_the_meta_gradient_saw(encoder, episode):
    subject = learner(encoder, "zero", "all")
    parameters, _ = subject.adapt(episode)
    logits = subject.logits(parameters, episode.query)
    loss = F.cross_entropy(logits, torch.from_numpy(episode.query_labels)).item()
    assert loss == pytest.approx(float(subject.outer_gradient(episode).loss_after), abs=1e-12)


def test_adaptation_for_use_keeps_no_trajectory(encoder, episode, monkeypatch):
    subject = learner(encoder, "linear", "all")
    update, made, alive = subject.rule.update, [], []

    def watched(*arguments):
        alive.append(sum(reference() is not None for reference in made))
        moved, state = update(*arguments)
        made.append(weakref.ref(moved["head.weight"]))
        return moved, state

    monkeypatch.setattr(subject.rule, "update", watched)
    subject.adapt(episode, steps=6)
    assert alive == [0, 1, 1, 1, 1, 1]


def test_adaptation_changes_no_meta_parameter_and_only_occurring_embeddings(encoder, episode):
    subject = learner(encoder, "zero", "all")
    before = {name: value.clone() for name, value in subject.parameters.items()}
    parameters, _ = subject.adapt(episode)
    assert all(torch.equal(before[name], value) for name, value in subject.parameters.items())
    name = "encoder." + encoder.word_embeddings
    changed = (parameters[name] != before[name]).any(1).nonzero().flatten()
    assert set(changed.tolist()) <= set(np.concatenate(episode.support).tolist())
    assert len(changed) > 5


def test_predictions_do_not_depend_on_the_other_queries(encoder, episode):
    subject = learner(encoder, "prototype", "all")
    parameters, _ = subject.adapt(episode)
    together = subject.logits(parameters, episode.query)
    alone = torch.cat([subject.logits(parameters, [text]) for text in episode.query])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse", "first_order", "reptile"])
@pytest.mark.parametrize("adapt", ["all", "last_layers", "head"])
def test_texts_one_at_a_time_give_the_same(encoder, episode, adapt, mode):
    subject = learner(encoder, "prototype", adapt, mode, multi_step_until=0 if mode == "reptile" else 5)
    whole, before = dense(subject, episode)
    subject = subject.with_plan(ExecutionPlan(part_tokens=1))
    parts, after = dense(subject, episode)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-12)
    assert after.loss_after == pytest.approx(float(before.loss_after), abs=1e-12)
    assert after.accuracy_after == before.accuracy_after


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed"])
def test_noise_in_parts_is_of_the_part(encoder, episode, mode):
    subject = learner(encoder, "prototype", "all", mode, dropout=0.2, meta_dropout=True, information_penalty=0.05)
    subject = subject.with_plan(ExecutionPlan(part_tokens=8))
    expected = unrolled_with_the_same_draws(subject, episode)
    found, _ = dense(subject, episode)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)


def test_fewer_graphs_change_no_bit(encoder, episode):
    subject = learner(encoder, "prototype", "all")
    whole, _ = dense(subject, episode)
    tokens = sum(map(len, episode.support))
    for graphs in (0, 1, 2.5):
        subject = subject.with_plan(ExecutionPlan(graph_tokens=graphs * tokens))
        assert subject.plan.graphs(tokens) == int(graphs)
        found, _ = dense(subject, episode)
        assert all(torch.equal(found[name], value) for name, value in whole.items())


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse", "first_order"])
def test_products_in_bf16_leave_parameters_and_direction(episode, mode):
    def made(dtype) -> EncoderLearner:
        torch.manual_seed(0)
        encoder, _ = load_encoder(ModelConfig(name="tiny", normalize=True, max_length=16), second_order=True, dtype=dtype)
        return learner(encoder, "prototype", "all", mode)

    half, whole = made(torch.bfloat16), made(torch.float32)
    assert {value.dtype for value in half.parameters.values()} == {torch.float32}
    adapted, _ = half.adapt(episode)
    assert {value.dtype for value in adapted.values()} == {torch.float32}
    (found, part), (expected, reference) = dense(half, episode), dense(whole, episode)
    assert part.loss_after != reference.loss_after  # it does something
    # Large inner steps on a small random model; on all-MiniLM-L6-v2 it is closer (scripts/benchmark).
    assert dot(found, expected) > 0.95 * (dot(found, found) * dot(expected, expected)) ** 0.5


@pytest.mark.parametrize(
    ("head", "more"), [("prototype", {}), ("shared", {}), ("ridge", {}), ("zero", {"meta_dropout": True, "information_penalty": 0.1})], ids=str
)
@pytest.mark.parametrize("mode", ["exact", "first_order"])
def test_episodes_encoded_in_one_batch_give_the_same(encoder, episode, head, more, mode):
    if mode == "first_order" and "meta_dropout" in more:
        more = {"information_penalty": 0.1}
    subject = learner(encoder, head, "head", mode, **more)
    swapped = replace(episode, support=episode.support[::-1], query=episode.query[:1], query_labels=episode.query_labels[:1], seed=3)
    episodes = [episode, swapped, replace(episode, seed=5)]
    alone, together = ({name: torch.zeros_like(value) for name, value in subject.parameters.items()} for _ in range(2))
    parts = [subject.outer_gradient(each) for each in episodes]
    joint = subject.outer_gradients(episodes)
    for total, found in ((alone, parts), (together, joint)):
        for part in found:
            subject.add_gradient(total, part, 0.5)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-11, msg=name)
    for one, other in zip(parts, joint, strict=True):
        assert (one.loss_before, one.loss_after) == pytest.approx((float(other.loss_before), float(other.loss_after)), abs=1e-11)
        if head != "shared":  # whose logits are the same for all classes before adaptation, up to the last bit
            assert one.accuracy_before == other.accuracy_before
        assert one.accuracy_after == other.accuracy_after


def test_episodes_are_encoded_in_batches_that_leave_every_rank_some(encoder, episode):
    subject = learner(encoder, "prototype", "head")
    tokens = sum(map(len, (*episode.support, *episode.query)))
    fitting = SHARED_TOKENS // tokens
    assert [len(group) for group in subject.groups([episode] * (2 * fitting + 1))] == [fitting, fitting, 1]
    subject = subject.with_plan(ExecutionPlan(part_tokens=3 * tokens))
    assert [len(group) for group in subject.groups([episode] * 4)] == [3, 1]
    assert [len(group) for group in learner(encoder, "prototype", "all").groups([episode] * 2)] == [1, 1]


def test_any_number_of_classes_without_a_learned_head(encoder, episode):
    subject = learner(encoder, "zero", "head")
    parameters, _ = subject.adapt(replace(episode, support_labels=np.array([0, 1, 2, 3]), names=["a", "b", "c", "d"]))
    assert subject.logits(parameters, episode.query).shape == (2, 4)


def test_a_head_that_does_not_adapt_stays_as_it_started(encoder, episode):
    subject = learner(encoder, "linear", "body")
    parameters, _ = subject.adapt(episode)
    assert torch.equal(parameters["head.weight"], subject.parameters["head.weight"])
    assert not torch.equal(
        parameters["encoder.backbone.encoder.layer.0.output.dense.weight"], subject.parameters["encoder.backbone.encoder.layer.0.output.dense.weight"]
    )


@pytest.mark.parametrize("mode", ["implicit", "reptile", "finite_difference"])
def test_the_other_modes_run_on_a_transformer(encoder, episode, mode):
    torch.manual_seed(1)
    algorithm = AlgorithmConfig(head="prototype", meta_gradient=mode, proximal=2.0 if mode == "implicit" else 0.0)
    subject = EncoderLearner(encoder, algorithm, InnerConfig(lr=LR, steps=STEPS), way=2)
    part = subject.outer_gradient(episode)
    assert (part.residual is not None) == (mode == "implicit")
    assert sum(float(value.abs().sum()) for value in part.gradient.values()) > 0
    if mode == "finite_difference":
        exact, _ = dense(learner_like(subject, encoder), episode)
        found, _ = dense(subject, episode)
        dot = sum(float((exact[name] * found[name]).sum()) for name in exact)
        size = sum(float(value.square().sum()) for value in exact.values()) * sum(float(value.square().sum()) for value in found.values())
        assert dot / size**0.5 > 1 - 1e-6


def learner_like(subject: EncoderLearner, encoder: Encoder) -> EncoderLearner:
    torch.manual_seed(1)
    return EncoderLearner(encoder, replace(subject.algorithm, meta_gradient="exact"), subject.inner, way=2)


def test_derivatives_of_second_order_begin_when_they_are_to(encoder, episode):
    torch.manual_seed(1)
    subject = EncoderLearner(encoder, AlgorithmConfig(head="prototype", first_order_until=10), InnerConfig(lr=LR, steps=STEPS), way=2)
    gradients = [subject.outer_gradient(episode, step).gradient["head.log_scale"] for step in (0, 9, 10)]
    assert gradients[0] == gradients[1] != gradients[2]
