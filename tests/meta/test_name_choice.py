"""Label names as examples: which say anything in words, and whether the support set agrees with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.name_choice import choose_names
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.label_names import meaningful_names, unread_note

NUMBERS = tuple(map(str, range(31)))


@pytest.mark.parametrize(
    "names",
    [
        *(NUMBERS, ("-1", "1"), ("0.5", "1.0"), ("A", "B", "C"), ("LABEL_0", "LABEL_1"), ("label 3", "label 4"), ("class-a", "class-b"), ("x17", "y4")),
        *(("E11.9", "I10"), ("AB-12", "CD-7"), ("1a", "2b"), ("Type I", "Type II"), ("类别1", "类别2"), ("__label__1", "__label__2"), ("topic5", "topic6")),
        *(("а", "б"), ("?", "!")),
    ],
)
def test_numbers_codes_and_single_letters_say_nothing(names):
    assert meaningful_names(names) == (False,) * len(names)


@pytest.mark.parametrize(
    "names",
    [
        *(("book_flight", "book_hotel"), ("relevant", "not_relevant"), ("yes", "no"), ("体育", "财经"), ("好", "坏"), ("BookFlight", "PlayMusic")),
        *(("top 10", "3d printing"), ("😀", "😡"), ("жалоба", "вопрос"), ("हाँ", "नहीं"), ("C++ questions", "C# news"), ("UK", "US"), ("mp3 player", "tv")),
    ],
)
def test_words_in_any_script_say_something(names):
    assert meaningful_names(names) == (True,) * len(names)


def test_names_without_words_beside_others_and_the_line_that_says_so():
    assert meaningful_names(("sports", "17", "B2")) == (True, False, False)
    assert unread_note([("task 'a'", ("good", "bad"))]) is None
    said = unread_note([("task 'a'", ("good", "bad")), ("task 'b'", NUMBERS), ("task 'c'", ("x", "y"))])
    assert said is not None and "'0', '1', '2', ... in task 'b' and 1 more task;" in said


def blobs(way, per_class, seed=0):
    """Encodings of each class around a direction of its own, and of names at the same directions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(way).repeat_interleave(per_class)
    directions = torch.randn(way, 32, generator=generator)
    return directions[labels] + torch.randn(len(labels), 32, generator=generator), labels, directions


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_names_are_read_where_they_agree_with_the_examples_and_else_not(per_class):
    features, labels, names = blobs(8, per_class)
    assert choose_names(features, labels, names, torch.arange(8), 8).read
    assert not choose_names(features, labels, names.roll(1, 0), torch.arange(8), 8).read


def test_the_loss_of_an_example_left_out_by_hand():
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [1.0, 0.0], [0.0, 1.0], [0.3, 1.0]]), dim=1)
    labels, names = torch.tensor([0, 0, 1, 1]), torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    losses = {True: [], False: []}
    for with_names in losses:
        for row in range(4):
            means = []
            for label in range(2):
                members = [features[other] for other in range(4) if other != row and labels[other] == label]
                members += [torch.nn.functional.normalize(names[label], dim=0)] if with_names else []
                means.append(torch.nn.functional.normalize(torch.stack(members).sum(0), dim=0))
            losses[with_names].append(torch.nn.functional.cross_entropy(10 * torch.stack(means) @ features[row], labels[row]))
    expected = {key: float(torch.stack(values).mean()) for key, values in losses.items()}
    choice = choose_names(features, labels, names, torch.arange(2), 2)
    assert f"{expected[True]:.3f} with them, {expected[False]:.3f} without" in choice.why and choice.read == (expected[True] <= expected[False])


def test_two_examples_are_too_few_to_judge_names_by():
    features, labels, names = blobs(2, 1)
    for each in (names, names.roll(1, 0)):
        assert choose_names(features, labels, each, torch.arange(2), 2).why == "too few examples to decide"


def tiny_learner(fit_head: bool, label_names: bool) -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=16, normalize=True), second_order=False)
    algorithm = AlgorithmConfig(head="cosine", head_scale=10.0, adapt="head", label_names=label_names)
    return EncoderLearner(encoder, algorithm, InnerConfig(steps=0, fit_head=fit_head), way=None)


def episode(learner, names) -> EncodedEpisode:
    texts = [f"the {word} number {number}" for number in range(3) for word in ("good tool", "bad film")]
    tokens = learner.model.tokens()
    ids = tokens.encode(texts)
    return EncodedEpisode(ids[:4], np.array([0, 1, 0, 1]), ids[4:], np.array([0, 1]), names, name_tokens=tokens.names(names))


@pytest.mark.parametrize("fit_head", [False, True])
def test_a_task_of_codes_is_learned_as_if_names_were_not_read(fit_head):
    """In meta-training, and in adaptation for use."""
    with_names, without = (tiny_learner(fit_head, names) for names in (True, False))
    codes = episode(with_names, ("0", "28"))
    for name, value in without.adapt(codes)[0].items():
        assert torch.equal(with_names.adapt(codes)[0][name], value), name
    for name, value in without.mean_gradient([codes]).items():
        assert torch.equal(with_names.mean_gradient([codes])[name], value), name
    # Beside a task whose names are words, in one meta-batch.
    words = replace(codes, names=("good", "bad"))
    both = with_names.mean_gradient([codes, words])
    single = [with_names.mean_gradient([each]) for each in (codes, words)]
    torch.testing.assert_close(both, {name: (single[0][name] + single[1][name]) / 2 for name in both})


@pytest.mark.parametrize("fit_head", [False, True])
def test_names_that_disagree_with_the_examples_are_not_read_in_use(fit_head, monkeypatch):
    learner, without = tiny_learner(fit_head, True), tiny_learner(fit_head, False)
    texts = episode(learner, ("good", "bad"))
    plain = without.adapt(texts)[0]["head.weight"]
    for read in (True, False):
        monkeypatch.setattr("metatrain.meta.support_fit.choose_names", lambda *given, read=read: replace(choose_names(*given), read=read))
        assert torch.equal(learner.adapt(texts)[0]["head.weight"], plain) != read
        assert learner.choose_names(texts).read == read
    assert without.choose_names(texts) is None
