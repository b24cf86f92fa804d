"""Tasks made of raw text say what they claim to say."""

import numpy as np
import pytest

from metatrain.errors import UserError
from metatrain.tasks.config import ClustersConfig, EpisodeConfig, PairsConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.episodes import training_episode
from metatrain.tasks.self_supervised import clusters, same_text, sentence_order
from metatrain.tasks.texts import PAIR

TOPICS = {"sea": "ship harbour wave sail captain anchor", "kitchen": "pan oven flour butter spoon plate", "court": "judge lawyer trial jury verdict appeal"}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [f"the {' and the '.join(rng.choice(words.split(), 4))} number {n}" for n in range(40) for words in TOPICS.values()]


def topic(text: str) -> str:
    return next(name for name, words in TOPICS.items() if any(word in text.split() for word in words.split()))


def test_clusters_are_groups_of_similar_texts(texts):
    found = clusters(texts, ClustersConfig(way=3, clusters=3, partitions=8), 0)
    assert len(found) >= 2 and found[0].name.startswith("clusters ")
    purity = []
    for task in found:
        sizes = np.bincount(task.labels)
        assert sizes.min() >= 20
        of_topic = [max(np.unique([topic(task.texts[row]) for row in np.flatnonzero(task.labels == c)], return_counts=True)[1]) for c in range(len(sizes))]
        purity.append(sum(of_topic) / sizes.sum())
    assert max(purity) > 0.8 and np.mean(purity) > 0.55  # scaled at random, not every partition follows the topics; a third would be chance
    again = clusters(texts, ClustersConfig(way=3, clusters=3, partitions=8), 0)
    assert all(np.array_equal(one.labels, other.labels) and one.texts == other.texts for one, other in zip(found, again))


def story(n: int) -> str:
    return " ".join(f"This is sentence number {part} of text {n}." for part in range(4))


def numbers(pair: str) -> list[tuple[int, int]]:
    """(text, sentence) of both halves."""
    return [(int(half.split()[-1].rstrip(".")), int(half.split()[4])) for half in pair.split(PAIR)]


def test_sentences_in_order_and_swapped():
    (task,) = sentence_order([story(n) for n in range(60)], PairsConfig(max_pairs=80), 0)
    assert task.label_names == ("in order", "swapped") and np.bincount(task.labels).tolist() == [40, 40]
    for text, label in zip(task.texts, task.labels):
        (one, first), (other, second) = numbers(text)
        assert one == other and second - first == (1 if label == 0 else -1)


def test_sentences_of_one_text_and_of_two():
    (task,) = same_text([story(n) for n in range(60)], PairsConfig(max_pairs=80), 0)
    same = [one == other for (one, _), (other, _) in map(numbers, task.texts)]
    assert sum(same[:40]) == 40 and sum(same[40:]) <= 2  # two pairs of one text may follow each other
    assert len({half for text in task.texts for half in text.split(PAIR)[:1]}) == 80


def test_shares_are_those_of_the_episodes_and_held_out_texts_stay_out(tmp_path):
    (tmp_path / "stories.txt").write_text("\n".join(story(n) for n in range(60)))
    config = TasksConfig(
        path="metatrain:reviews",
        task="domain",
        meta_train=SplitConfig(tasks=["books", "cars"]),
        meta_test=SplitConfig(tasks=["films"]),
        sentence_order=PairsConfig(share=0.25, path=str(tmp_path / "stories.txt")),
        clusters=ClustersConfig(share=0.5, clusters=3, way=2, partitions=2),
    )
    tasks = load_tasks(config, 0)
    assert [task.name for task in tasks.meta_train] == ["books", "cars", "clusters 1", "clusters 2", "sentence order"]
    assert tasks.weights == pytest.approx((0.125, 0.125, 0.25, 0.25, 0.25))
    held_out = set(tasks.meta_test[0].texts)
    assert not any(held_out & set(task.texts) for task in tasks.meta_train)
    ways = {(episode := training_episode(tasks, EpisodeConfig(shots=2, queries=2), 0, index)).task.name: episode.way for index in range(60)}
    assert ways == {"books": 2, "cars": 2, "clusters 1": 2, "clusters 2": 2, "sentence order": 2}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"clusters": ClustersConfig(share=0.6), "same_text": PairsConfig(share=0.6)}, "add up to 1.2: clusters, same_text"),
        ({"same_text": PairsConfig(share=-1)}, "tasks.same_text.share=-1 must be between 0 and 1"),
        ({"sentence_order": PairsConfig(share=0.5, path="short.txt")}, "1 pairs of sentences follow each other"),
        ({"clusters": ClustersConfig(share=0.5, path="short.txt")}, "1 texts do not make"),
    ],
)
def test_what_cannot_be_made(tmp_path, monkeypatch, changes, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("Here are five short words. And here are five more words.\n")
    with pytest.raises(UserError, match=expected):
        load_tasks(TasksConfig(path="metatrain:reviews", task="domain", **changes), 0)
