import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from metatrain.evaluation.arms import FrozenFeatures, FrozenLogisticRegression, FrozenPrototypes, ShuffledLabels, make_arms
from metatrain.meta.episode_texts import EpisodeTexts


class Fixed:
    """Stands in for a learner: a text's vector is its token ids."""

    memory = None  # its limit

    def __init__(self):
        self.encoded = 0

    def features(self, texts):
        self.encoded += len(texts)
        return torch.tensor(np.stack(texts), dtype=torch.float32)


def episode(rng) -> EpisodeTexts:
    labels = np.array([0, 1, 2] * 4)
    vectors = [rng.integers(0, 9, size=5) + 3 * label for label in labels]
    return EpisodeTexts(vectors[:6], labels[:6], vectors[6:], labels[6:], ["a", "b", "c"])


def test_logistic_regression_is_scikit_learns():
    texts = episode(np.random.default_rng(0))
    predicted, seconds = FrozenLogisticRegression(FrozenFeatures(Fixed())).predict(texts)
    expected = LogisticRegression(max_iter=1000).fit(np.stack(texts.support), texts.support_labels).predict(np.stack(texts.query))
    assert predicted.tolist() == expected.tolist()
    assert seconds > 0


def test_prototypes_answer_with_the_nearest_class_mean():
    texts = episode(np.random.default_rng(1))
    predicted, _ = FrozenPrototypes(FrozenFeatures(Fixed())).predict(texts)
    support = np.stack(texts.support).astype(float)
    means = [support[texts.support_labels == label].mean(0) for label in range(3)]
    assert predicted.tolist() == [int(np.argmin([((query - mean) ** 2).sum() for mean in means])) for query in texts.query]


def test_a_query_is_encoded_once_however_many_episodes_and_arms_ask():
    texts, learner = episode(np.random.default_rng(2)), Fixed()
    arms = make_arms(["prototypes", "logistic_regression"], Fixed(), learner)
    for _ in range(3):
        for arm in arms.values():
            arm.predict(texts)
    assert learner.encoded == 2 * 3 * 6 + 6  # supports each time, for the sake of honest seconds


def test_arms_by_name():
    assert list(make_arms(["prototypes", "logistic_regression"], Fixed(), Fixed())) == ["prototypes", "logistic_regression"]


def test_shuffled_labels_are_the_same_labels_in_another_order_each_time_the_same():
    class Seen:
        labels: list = []

        def predict(self, episode):
            self.labels.append(episode.support_labels.tolist())
            return episode.query_labels, 0.0

    texts, arm = episode(np.random.default_rng(3)), Seen()
    for _ in range(2):
        ShuffledLabels(arm).predict(texts)
    assert arm.labels[0] == arm.labels[1] != texts.support_labels.tolist()
    assert sorted(arm.labels[0]) == sorted(texts.support_labels.tolist())
