from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from metatrain.errors import UserError
from metatrain.evaluation.adapted_arms import Adapted, NamesOnly, ShuffledLabels, WithNames, WithUnlabelled
from metatrain.evaluation.arms import Learners, make_arms
from metatrain.evaluation.chosen_arms import check_learner, chosen_arms
from metatrain.evaluation.config import EvaluationConfig, FullFinetuneConfig, check_unlabelled
from metatrain.evaluation.frozen_arms import FrozenFeatures, FrozenLogisticRegression, FrozenNearestNeighbour, FrozenPrototypes
from metatrain.evaluation.full_finetune import FullFinetuned
from metatrain.evaluation.logistic_regression import STRENGTHS, WITHOUT_FOLDS, choose_strength, logistic_regression
from metatrain.evaluation.prediction import Prediction
from metatrain.evaluation.protocol import num_unlabelled
from metatrain.evaluation.setfit_arm import SetFit
from metatrain.evaluation.statistics import log_loss
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_fit import WARMUP
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.head_fit import folds_of
from metatrain.meta.name_choice import NameChoice
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode, RawTexts


class Fixed:
    """Stands in for a learner: a text's vector is its token ids."""

    plan = ExecutionPlan()
    functional = SimpleNamespace(first_adapted_layer=0)  # as if its encoder adapted

    def __init__(self):
        self.encoded = 0

    def with_plan(self, plan):
        return self

    @property
    def encodings(self):
        return self

    def features(self, texts):
        self.encoded += len(texts)
        return torch.tensor(np.stack(texts), dtype=torch.float32)


def episode(rng) -> EncodedEpisode:
    labels = np.array([0, 1, 2] * 4)
    vectors = [rng.integers(0, 9, size=5) + 3 * label for label in labels]
    return EncodedEpisode(vectors[:6], labels[:6], vectors[6:], labels[6:], ["a", "b", "c"])


def test_logistic_regression_is_scikit_learns():
    texts = episode(np.random.default_rng(0))
    found = FrozenLogisticRegression(FrozenFeatures(Fixed())).predict(texts)
    support = np.stack(texts.support).astype(float)
    strength = choose_strength(support, texts.support_labels) / np.square(support).sum(1).mean()
    expected = LogisticRegression(C=strength, max_iter=1000).fit(support, texts.support_labels)
    assert found.predicted.tolist() == expected.predict(np.stack(texts.query)).tolist()
    np.testing.assert_allclose(found.probabilities, expected.predict_proba(np.stack(texts.query)))
    assert found.seconds > 0


def test_the_nearest_neighbour_is_scikit_learns():
    for seed in range(5):
        texts = episode(np.random.default_rng(seed))
        found = FrozenNearestNeighbour(FrozenFeatures(Fixed())).predict(texts)
        expected = KNeighborsClassifier(1, algorithm="brute").fit(np.stack(texts.support), texts.support_labels).predict(np.stack(texts.query))
        assert found.predicted.tolist() == expected.tolist() and found.probabilities is None


def test_the_nearest_neighbour_solves_classes_at_opposite_corners():
    """Both class means are the centre of the square, and no line separates the classes (exclusive or): a linear layer has at most three corners right."""
    corners, labels = [np.array(each) for each in ((0, 0), (9, 9), (0, 9), (9, 0))], np.array([0, 0, 1, 1])
    near = [corner + np.sign(4.5 - corner).astype(int) for corner in corners]
    texts = EncodedEpisode(corners, labels, near, labels, ["a", "b"])
    correct = {
        arm.__name__: int((arm(FrozenFeatures(Fixed())).predict(texts).predicted == labels).sum())
        for arm in (FrozenNearestNeighbour, FrozenPrototypes, FrozenLogisticRegression)
    }
    assert correct["FrozenNearestNeighbour"] == 4 and max(correct["FrozenPrototypes"], correct["FrozenLogisticRegression"]) <= 3


def test_prototypes_answer_with_the_nearest_class_mean():
    texts = episode(np.random.default_rng(1))
    found = FrozenPrototypes(FrozenFeatures(Fixed())).predict(texts)
    support = np.stack(texts.support).astype(float)
    means = [support[texts.support_labels == label].mean(0) for label in range(3)]
    distances = np.array([[((query - mean) ** 2).sum() for mean in means] for query in texts.query])
    assert found.predicted.tolist() == distances.argmin(1).tolist()
    np.testing.assert_allclose(found.probabilities, np.exp(-distances) / np.exp(-distances).sum(1, keepdims=True), atol=1e-12)


def test_a_text_is_encoded_once_however_many_episodes_and_arms_ask():
    texts, learner = episode(np.random.default_rng(2)), Fixed()
    arms = make_arms(["prototypes", "logistic_regression"], Learners(Fixed(), learner, EvaluationConfig()))
    for _ in range(3):
        for arm in arms.values():
            arm.predict(texts)
    assert learner.encoded == 6 + 6


def test_arms_by_name():
    assert list(make_arms(["prototypes", "logistic_regression"], Learners(Fixed(), Fixed(), EvaluationConfig()))) == ["prototypes", "logistic_regression"]


def test_shuffled_labels_are_the_same_labels_in_another_order_each_time_the_same():
    class Seen:
        labels: list = []

        def predict(self, episode):
            self.labels.append(episode.support_labels.tolist())
            return Prediction(episode.query_labels, None, 0.0)

    texts, arm = episode(np.random.default_rng(3)), Seen()
    for _ in range(2):
        ShuffledLabels(arm).predict(texts)
    assert arm.labels[0] == arm.labels[1] != texts.support_labels.tolist()
    assert sorted(arm.labels[0]) == sorted(texts.support_labels.tolist())


class Recorded:
    """Remembers the support sets that it was given."""

    def __init__(self):
        self.support = []

    def predict(self, episode):
        self.support.append((list(episode.support), episode.support_labels.tolist()))
        return Prediction(episode.query_labels, None, 0.0)


def test_names_join_the_examples_or_stand_in_their_place():
    names = [np.array([7, 8]), np.array([9])]
    texts = EncodedEpisode([np.array([1]), np.array([2])], np.array([1, 0]), [], np.zeros(0, int), ["refund", "delivery"], name_tokens=names)
    with_names, alone = Recorded(), Recorded()
    WithNames(with_names).predict(texts)
    NamesOnly(alone).predict(texts)
    assert with_names.support == [([*texts.support, *names], [1, 0, 0, 1])]
    assert alone.support == [(names, [0, 1])]
    # A name that is no word is not among the examples; a support set of names takes all of them.
    WithNames(with_names).predict(replace(texts, names=["refund", "17"]))
    NamesOnly(alone).predict(replace(texts, names=["refund", "17"]))
    assert with_names.support[-1] == ([*texts.support, names[0]], [1, 0, 0]) and alone.support[-1] == alone.support[0]


def test_arms_that_need_what_is_not_there_are_refused():
    plain, named = AlgorithmConfig(), AlgorithmConfig(label_names=True)
    assert "names_only" in chosen_arms(EvaluationConfig(), named, ())
    assert "names_only" not in chosen_arms(EvaluationConfig(), plain, ())
    assert "joint" in chosen_arms(EvaluationConfig(joint="a run"), plain, ())
    with pytest.raises(UserError, match="set algorithm.label_names=true"):
        chosen_arms(EvaluationConfig(arms=["names_only"]), plain, ())
    with pytest.raises(UserError, match="evaluation.joint=RUN"):
        chosen_arms(EvaluationConfig(arms=["joint"]), plain, ())


def tiny_learner(label_names: bool = False) -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32, normalize=True), second_order=False)
    algorithm = AlgorithmConfig(head="cosine", head_scale=10.0, adapt="head", label_names=label_names)
    return EncoderLearner(encoder, algorithm, InnerConfig(steps=0), way=None)


def tiny_episode(learner: EncoderLearner) -> EncodedEpisode:
    tokens, names = learner.model.tokens(), ["good", "bad"]
    texts = ["a fine good film", "good, I liked it", "bad and dull", "a bad waste", "good film", "bad film"]
    ids, raw = tokens.encode(texts), RawTexts(texts[:4], texts[4:], names)
    return EncodedEpisode(ids[:4], np.array([0, 0, 1, 1]), ids[4:], np.array([0, 1]), names, name_tokens=tokens.names(names), raw=raw)


def test_full_finetuning_starts_from_an_encoder_and_learns_the_support_set():
    learner = tiny_learner()
    episode, before = tiny_episode(learner), learner.copy_of_model()
    arm = FullFinetuned(learner, FullFinetuneConfig(lr=1e-3, head_lr=0.1, steps=30))
    seen = EncodedEpisode(episode.support, episode.support_labels, episode.support, episode.support_labels, episode.names)
    first, second = arm.predict(seen), arm.predict(seen)
    assert first.predicted.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(first.probabilities, second.probabilities)  # it begins every episode with the same encoder
    assert all(torch.equal(learner.parameters[name], value) for name, value in before.items())


def test_full_finetuning_is_adam_on_every_parameter():
    """One update from a head of zeros moves each parameter that has a gradient by its rate: Adam's first step is a sign."""
    learner = tiny_learner()
    arm = FullFinetuned(learner, FullFinetuneConfig(lr=1e-3, head_lr=0.5, steps=1))
    moved = arm._trained(tiny_episode(learner))
    rates = 1e-3 / WARMUP, 0.5 / WARMUP
    assert float(moved["head.bias"].abs().max()) <= rates[1] * 1.001
    assert float(moved["head.weight"].abs().max()) == pytest.approx(rates[1], rel=1e-3)
    assert max(float((moved[name] - value).abs().max()) for name, value in learner.copy_of_model().items()) <= rates[0] * 1.001


def test_a_full_finetune_has_two_hundred_updates_and_the_best_of_three_rates(monkeypatch):
    learner = tiny_learner()
    arm = FullFinetuned(learner, EvaluationConfig().full_finetune)
    assert arm.config.steps >= 200 and len(arm.config.rates) == 3
    answers = {2e-5: [0, 0], 5e-5: [0, 1], 1e-4: [1, 1]}  # of which the second is correct
    monkeypatch.setattr(FullFinetuned, "predict", lambda self, episode: Prediction(np.array(answers[self.lr]), np.full((2, 2), 0.5), 0.0))
    done = []
    arm.choose_rate([tiny_episode(learner)] * 2, done.append)
    assert arm.lr == 5e-5 and sum(done) == 6


def test_without_meta_training_is_read_out_by_the_same_fitted_head():
    trained, untrained = tiny_learner(), tiny_learner()
    trained.load({name: value + 0.1 for name, value in trained.copy_of_model().items()})
    episode = tiny_episode(untrained)
    for learner in (trained, untrained):
        learner.inner = InnerConfig(steps=0, fit_head=True)
    arms = make_arms(["meta_trained", "no_meta_training"], Learners(trained, untrained, EvaluationConfig()))
    for arm, learner in zip(arms.values(), (trained, untrained)):
        fitted, _ = learner.fit_support(episode)
        np.testing.assert_allclose(arm.predict(episode).probabilities, learner.probabilities(fitted, episode), atol=1e-6)


def test_the_strength_of_logistic_regression_is_the_best_on_examples_held_out():
    """Many classes on vectors of length 1: C=1 hardly learns them."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(20, 32))
    features = np.repeat(means, 12, axis=0) + rng.normal(size=(240, 32))
    features, labels = features / np.linalg.norm(features, axis=1, keepdims=True), np.repeat(np.arange(20), 12)
    train = np.arange(240) % 12 < 6
    folds = folds_of(labels[train], 0)
    losses = []
    for strength in STRENGTHS:
        model, rest = LogisticRegression(C=strength, max_iter=1000), [np.setdiff1d(np.arange(120), fold) for fold in folds]
        found = [model.fit(features[train][seen], labels[train][seen]).predict_proba(features[train][fold]) for seen, fold in zip(rest, folds)]
        losses.append(log_loss(np.concatenate(found), labels[train][np.concatenate(folds)]))
    assert choose_strength(features[train], labels[train]) == STRENGTHS[int(np.argmin(losses))] > 1
    loss = {name: log_loss(model.predict_proba(features[~train]), labels[~train]) for name, model in (
        ("chosen", logistic_regression(features[train], labels[train])), ("C=1", LogisticRegression().fit(features[train], labels[train]))
    )}  # fmt: skip
    assert loss["chosen"] < 0.8 * loss["C=1"]


def test_logistic_regression_does_not_depend_on_the_length_of_the_vectors_and_has_a_fixed_strength_where_nothing_can_be_held_out():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(12, 8)), np.repeat([0, 1, 2], 4)
    probabilities = [logistic_regression(scale * features, labels).predict_proba(scale * features) for scale in (1.0, 30.0)]
    np.testing.assert_allclose(*probabilities, atol=1e-3)
    assert choose_strength(features[::4], labels[::4]) == WITHOUT_FOLDS


def test_full_finetuning_is_of_the_encoder_before_meta_training_or_after_it():
    trained, untrained = tiny_learner(), tiny_learner()
    trained.load({name: value + 1 for name, value in trained.copy_of_model().items()})
    arms = make_arms(["full_finetune", "full_finetune_of_trained"], Learners(trained, untrained, EvaluationConfig()))
    for arm, start in zip(arms.values(), (untrained, trained)):
        assert arm.start.parameters is start.parameters


def test_a_trained_encoder_answers_and_not_what_is_known_of_the_frozen_one(monkeypatch):
    monkeypatch.setattr("metatrain.meta.encoder_fit._numbers", lambda examples: [20])  # among which is not none
    learner = tiny_learner()
    episode, features = tiny_episode(learner), FrozenFeatures(learner)
    learner.inner = InnerConfig(steps=0, fit_head=True, fit_encoder=True)
    features.known(episode.query)
    found = Adapted(learner, features=features).predict(episode)
    own, fit = learner.fit_support(episode)
    assert fit.updates == 20
    np.testing.assert_array_equal(found.probabilities, learner.probabilities(own, episode))


def test_a_learner_with_names_has_them_as_examples(monkeypatch):
    monkeypatch.setattr("metatrain.meta.support_fit.choose_names", lambda *given: NameChoice(True, "by this test"))
    learner, plain = tiny_learner(label_names=True), tiny_learner()
    episode = tiny_episode(learner)
    mine, _ = learner.adapt(episode)
    expected, _ = plain.adapt(episode.with_names())
    assert torch.equal(mine["head.weight"], expected["head.weight"])
    assert not torch.equal(mine["head.weight"], plain.adapt(episode)[0]["head.weight"])
    grouped = learner.outer_gradients([episode, episode])
    single = learner.outer_gradient(episode)
    torch.testing.assert_close(grouped[0].loss_after, single.loss_after)


def test_setfit_begins_every_episode_with_the_encoder_before_meta_training():
    pytest.importorskip("setfit")
    learner = tiny_learner()
    episode, arm = tiny_episode(learner), SetFit(learner)
    vectors = arm._body.encode(list(episode.raw.query), convert_to_tensor=True)
    torch.testing.assert_close(vectors.cpu(), learner.features(episode.query), rtol=0, atol=1e-5)
    first, second = arm.predict(episode), arm.predict(episode)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert first.probabilities.shape == (2, 2)


def test_texts_of_a_learner_that_adapts_only_the_head_are_encoded_once(monkeypatch):
    learner = tiny_learner()
    episode, arm, encoded = tiny_episode(learner), Adapted(learner), []
    before = EncoderLearner.features
    monkeypatch.setattr(EncoderLearner, "features", lambda self, texts: encoded.append(len(texts)) or before(self, texts))
    first, second = arm.predict(episode), arm.predict(episode)
    assert encoded == [len(episode.support), len(episode.query)]
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    adapted, _ = learner.adapt(episode)
    np.testing.assert_allclose(first.probabilities, learner.probabilities(adapted, episode), atol=1e-6)


def test_setfit_is_refused_before_training_where_it_cannot_be(cli, tmp_path):
    pytest.importorskip("setfit")
    settings = ["debug=fast", "tracking=none", "evaluation.arms=[meta_trained,setfit]"]
    found = cli("train", *settings, "model.pooling=first", "hydra.run.dir=run")
    assert found.code == 2 and "setfit does not support model.pooling=first" in found.err and not (tmp_path / "run" / "config.yaml").exists()
    rows = "".join(f"a premise {i},a second text {i},{i % 2}\n" for i in range(40))
    for name in ("one", "two", "three", "four"):
        (tmp_path / "pairs").mkdir(exist_ok=True)
        (tmp_path / "pairs" / f"{name}.csv").write_text("text,second,label\n" + rows.replace("premise", f"premise of {name}"))
    found = cli("train", *settings, "tasks=files", "tasks.path=pairs", "tasks.pair=second", "hydra.run.dir=run")
    assert found.code == 2 and "setfit reads single texts" in found.err and not (tmp_path / "run" / "config.yaml").exists()


def test_another_way_is_refused_with_a_row_for_each_class(cli):
    found = cli("train", "debug=fast", "tracking=none", "algorithm.head=linear", "episode.way=2", "evaluation.way=3")
    assert found.code == 2 and "set evaluation.way=null" in found.err


def test_texts_without_labels_are_read_by_their_arm_only():
    class Seen:
        def predict(self, episode):
            seen.append((episode.reads_unlabelled, len(episode.unlabelled)))
            return Prediction(episode.query_labels, None, 0.0)

    seen: list = []
    texts = replace(episode(np.random.default_rng(4)), unlabelled=[np.zeros(5)] * 3)
    for arm in (Seen(), WithUnlabelled(Seen())):
        arm.predict(texts)
    assert seen == [(False, 3), (True, 3)]


@pytest.mark.parametrize(("settings", "said"), [({"unlabelled": 0}, "must be 1 or more"), ({"queries": None}, "makes every row a query")])
def test_episodes_without_rows_for_texts_without_labels_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        check_unlabelled(EvaluationConfig(arms=["meta_trained_with_unlabelled"], **settings))
    assert num_unlabelled(EvaluationConfig(arms=["meta_trained"])) == 0
    assert num_unlabelled(EvaluationConfig(arms=["meta_trained_with_unlabelled"], unlabelled=7)) == 7


def test_an_arm_with_texts_without_labels_needs_a_fitted_head():
    learner = SimpleNamespace(inner=InnerConfig(fit_head=False), model=None)
    with pytest.raises(UserError, match="set inner.fit_head=true"):
        check_learner(["meta_trained_with_unlabelled"], learner)
