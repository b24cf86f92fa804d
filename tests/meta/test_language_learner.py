"""Language models under the learner: the exact meta-gradient, answers by likelihood, and support sets that are read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import unrolled

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.language_learner import LanguageLearner
from metatrain.models.config import ModelConfig, ScratchConfig
from metatrain.models.language_loading import load_language_model
from metatrain.tasks.encoded_episode import EncodedEpisode

SENTENCES = ["a cat sat on the mat", "the dog", "birds sing in the morning sun", "no cats", "the sun sets", "a dog sings"]
ANSWERS = ["yes it did", "no", "they sing", "no", "yes", "it sings well"]
STEPS = 2
NAMES = {"scratch:t5": "t5", "scratch:gpt2": "gpt2"}


def made(name: str, head: str = "lm", meta_gradient: str = "exact", steps: int = STEPS, **more) -> LanguageLearner:
    torch.manual_seed(3)
    config = ModelConfig(name=name, max_length=16, max_target_length=8, scratch=ScratchConfig(layers=2, hidden=16, heads=2, vocabulary=300))
    model, _ = load_language_model(config, True, torch.float64, SENTENCES + ANSWERS)
    algorithm = AlgorithmConfig(head=head, adapt="head" if head == "in_context" else "all", meta_gradient=meta_gradient, **more)
    return LanguageLearner(model, algorithm, InnerConfig(lr=0.2, steps=steps))


def episode_of(learner: LanguageLearner, choices: bool = False) -> EncodedEpisode:
    from metatrain.tasks.encoded_episode import TargetTokens

    tokens = learner.model.tokens()
    texts, answers = tokens.encode(SENTENCES), tokens.encode_targets(ANSWERS)
    labels = np.array([0, 1, 0, 1])
    if choices:
        names = tokens.encode_targets(["yes", "no", "perhaps not"])
        targets = TargetTokens([names[label] for label in labels], [names[0], names[1]], names)
    else:
        targets = TargetTokens(answers[:4], answers[4:], None)
    return EncodedEpisode(texts[:4], labels, texts[4:], np.array([0, 1]), ["yes", "no", "perhaps not"], 5, targets)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse", "first_order"])
def test_the_meta_gradient_is_that_of_one_graph(name, mode):
    learner = made(name, meta_gradient=mode)
    episode = episode_of(learner)
    losses = learner.losses(episode, None)
    expected = unrolled(losses, learner.functional.view(learner.parameters, None), learner.rule, STEPS, first_order=mode == "first_order")
    found = learner.outer_gradient(episode).gradient
    assert found.keys() == expected.keys()
    size = sum(float(value.square().sum()) for value in expected.values()) ** 0.5
    distance = sum(float((found[key] - value).square().sum()) for key, value in expected.items()) ** 0.5
    # T5 takes its layer norms in float32, so that other orders of the same products differ by more.
    assert distance < (1e-6 if name == "scratch:t5" and mode == "forward_over_reverse" else 1e-9) * size


def test_exact_and_first_order_differ():
    gradients = []
    for mode in ("exact", "first_order"):
        learner = made("scratch:t5", meta_gradient=mode)
        gradients.append(torch.cat([value.flatten() for value in learner.outer_gradient(episode_of(learner)).gradient.values()]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_mean_over_target_tokens_whatever_the_parts(name):
    learner = made(name)
    episode = episode_of(learner)
    whole = learner.outer_gradient(episode)
    learner = learner.with_plan(replace(learner.plan, part_tokens=1))  # every text for itself
    parts = learner.outer_gradient(episode)
    assert float(parts.loss_after) == pytest.approx(float(whole.loss_after), rel=1e-12)
    assert float(parts.accuracy_after) == float(whole.accuracy_after)
    model, targets = learner.load_model(), episode.targets.query
    alone = sum(float(model(model.batch([text], [target])).loss) for text, target in zip(episode.query, targets))
    assert float(whole.loss_before) == pytest.approx(alone / sum(map(len, targets)), rel=1e-12)
    assert learner.target_loss(learner.initial, episode) == pytest.approx(float(whole.loss_before), rel=1e-12)
    adapted, _ = learner.adapt(episode)
    assert learner.target_loss(adapted, episode) == pytest.approx(float(whole.loss_after), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_adaptation_learns_the_support_set_and_does_not_change_the_meta_parameters(name):
    learner = made(name)
    episode = episode_of(learner)
    before = {key: value.clone() for key, value in learner.parameters.items()}
    episode = replace(episode, query=episode.support, targets=replace(episode.targets, query=episode.targets.support))
    adapted, last = learner.adapt(episode, steps=250)
    assert last < 0.05
    assert list(learner.predictions(adapted, episode)) == ANSWERS[:4]
    assert all(torch.equal(value, before[key]) for key, value in learner.parameters.items())


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_chosen_by_the_likelihood_of_their_names(name):
    learner = made(name)
    episode = episode_of(learner, choices=True)
    adapted, _ = learner.adapt(episode, steps=3)
    found = learner.predictions(adapted, episode)
    model = learner.functional.write_to_model(adapted)
    with torch.no_grad():
        expected = [np.argmin([float(model(model.batch([text], [choice])).loss) for choice in episode.targets.choices]) for text in episode.query]
    assert found.tolist() == expected


def test_in_context_reads_the_support_set_before_each_query():
    learner = made("scratch:gpt2", head="in_context", meta_gradient="first_order", steps=0)
    episode = episode_of(learner, choices=True)
    prompts = learner.functional.prompts(episode)
    for prompt, query in zip(prompts, episode.query):
        text = learner.model.tokenizer.decode(prompt)
        assert all(sentence in text for sentence in SENTENCES[:4])
        assert prompt[-len(query) :].tolist() == query.tolist()
    shuffled = learner.functional.prompts(episode.with_permuted_labels(np.array([1, 0, 3, 2])))
    assert any(one.tolist() != other.tolist() for one, other in zip(prompts, shuffled))
    # Nothing adapts: the meta-gradient is the gradient of the queries' loss.
    losses = learner.losses(episode, None)
    expected = unrolled(losses, learner.functional.view(learner.parameters, None), learner.rule, 0)
    found = learner.outer_gradient(episode).gradient
    assert all(torch.allclose(found[key], value, rtol=1e-12, atol=1e-15) for key, value in expected.items())


def test_the_sizes_of_an_episode_are_what_is_read_and_the_support_set_is_read_once():
    plain, in_context = made("scratch:gpt2"), made("scratch:gpt2", head="in_context", meta_gradient="first_order", steps=0)
    episode = episode_of(plain, choices=True)
    support, query = plain.sizes(episode)
    separator = len(plain.model.separator)
    assert support == [len(text) + separator + len(target) for text, target in zip(episode.support, episode.targets.support)]
    assert query == [len(text) + separator + len(target) for text, target in zip(episode.query, episode.targets.query)]
    context = len(in_context.functional.reading(episode).context)
    assert context >= sum(support)  # and what stands between the examples
    assert in_context.model.has_kv_cache and in_context.sizes(episode)[1] == [*query, context]
    in_context.model.has_kv_cache = False  # then it is read before each query
    assert in_context.sizes(episode)[1] == [context + size for size in query]


def test_examples_without_positions_are_left_out_balanced_over_the_classes():
    learner = made("scratch:gpt2", head="in_context", meta_gradient="first_order", steps=0)
    episode = episode_of(learner, choices=True)
    whole = learner.functional.reading(episode)
    learner.model.backbone.config.n_positions = len(whole.context) + 10
    found = learner.functional.reading(episode)
    assert whole.left_out == 0 and found.left_out in (1, 2)
    kept = [sentence in learner.model.tokenizer.decode(found.context) for sentence in SENTENCES[:4]]
    assert sum(kept) == 4 - found.left_out and set(episode.support_labels[kept].tolist()) == {0, 1}


def test_an_encoder_decoder_reads_no_support_set():
    with pytest.raises(UserError, match="needs a decoder-only model"):
        made("scratch:t5", head="in_context", steps=0)


def test_dropout_is_of_the_episode():
    learner = made("scratch:t5", dropout=0.3)
    episode = episode_of(learner)
    one, again, other = (float(learner.outer_gradient(replace(episode, seed=seed)).loss_after) for seed in (1, 1, 2))
    assert one == again != other
