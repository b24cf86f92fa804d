"""Self-supervised tasks: sentences with a word masked, and which word it was."""

import re
from collections import Counter

import numpy as np
import pytest

from metatrain.errors import UserError
from metatrain.models.tiny import tokenizer
from metatrain.tasks.config import EpisodeConfig, MaskedWordsConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.embedded import embedded_path
from metatrain.tasks.episodes import draw, training_episode
from metatrain.tasks.files import Columns, read_file
from metatrain.tasks.keys import text_key
from metatrain.tasks.masked_words import masked, masked_words
from metatrain.tasks.texts import MASK
from metatrain.tasks.tokens import Tokens

WORDS = ("apple", "river", "engine", "window", "music", "silver")
SMALL = MaskedWordsConfig(share=1.0, way=3, min_sentences=5, max_sentences=8, max_share=1.0)

REVIEWS = "metatrain:reviews"


def corpus(seed: int = 0, count: int = 300) -> list[str]:
    """Sentences of made-up fillers, each with one or two of WORDS, the first of these the most often."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.4, 0.2, 0.15, 0.1, 0.1, 0.05])

    def sentence(number: int) -> str:
        fillers = [f"w{number}{letter}" for letter in "abcde"]
        chosen = rng.choice(WORDS, 1 + rng.integers(2), p=shares)
        return " ".join([chosen[0].capitalize(), *fillers, *chosen, "end" + "x" * (number % 3)]) + "."

    return [" ".join(sentence(2 * n + m) for m in range(2)) for n in range(count // 2)]


def test_every_occurrence_is_masked_and_nothing_else():
    assert masked("Film, film and FILM: a filmed film's films!", "film") == f"{MASK}, {MASK} and {MASK}: a filmed film's films!"
    assert masked("Über über uber", "über") == f"{MASK} {MASK} uber"


def test_no_sentence_shows_its_word_or_is_there_twice():
    task = masked_words(corpus(), SMALL, 0)
    assert set(task.label_names) >= set(WORDS)
    for text, label in zip(task.texts, task.labels):
        assert MASK in text
        assert not re.search(rf"\b{task.label_names[label]}\b", text, re.IGNORECASE)
    # A sentence is of one word only: what is left of it when all six words are gone tells sentences apart.
    bare = [re.sub(rf"{MASK}|\b({'|'.join(WORDS)})\b", "", text, flags=re.IGNORECASE) for text in task.texts]
    assert len(set(bare)) == len(bare)


def test_each_class_has_as_many_sentences_as_asked_for():
    task = masked_words(corpus(), SMALL, 0)
    counts = Counter(task.labels.tolist())
    assert all(SMALL.min_sentences <= count <= SMALL.max_sentences for count in counts.values())


def test_frequent_and_rare_words_are_taken_evenly():
    """Four words of 80 sentences each among forty of eight: of eight that are taken, four."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"often{'wxyz'[n % 4]} rare{letters[n % 40 % 26]}{letters[n % 40 // 26]} q{n}a q{n}b q{n}c." for n in range(320)]
    task = masked_words(texts, MaskedWordsConfig(share=1.0, way=2, max_words=8, min_sentences=3, max_sentences=8, max_share=1.0), 0)
    assert Counter(name[:4] for name in task.label_names) == {"ofte": 4, "rare": 4}


def test_it_depends_only_on_texts_settings_and_seed():
    one, again, other = (masked_words(corpus(), SMALL, seed) for seed in (0, 0, 1))
    assert one.texts == again.texts and np.array_equal(one.labels, again.labels)
    assert one.texts != other.texts


def test_words_in_too_many_sentences_are_left_out():
    task = masked_words(corpus(), MaskedWordsConfig(share=1.0, way=3, min_sentences=5, max_sentences=8, max_share=0.3), 0)
    assert "apple" not in task.label_names
    assert "silver" in task.label_names


def test_too_little_text_is_refused():
    with pytest.raises(UserError, match="tasks.masked_words.way=3; give more text"):
        masked_words(corpus(count=10), SMALL, 0)


def test_an_episode_draws_a_few_words():
    task = masked_words(corpus(), SMALL, 0)
    rng = np.random.default_rng(0)
    assert draw(task, EpisodeConfig(shots=2, queries=2), rng).way == 3
    assert draw(task, EpisodeConfig(way=2, shots=2, queries=2), rng).way == 2


def test_the_tokenizers_mask_is_what_a_model_sees():
    task = masked_words(corpus(), SMALL, 0)
    words = tokenizer()
    (ids,) = Tokens(words, 64).of(task, [0])
    assert words.mask_token_id in ids
    assert ids.tolist() == words(task.texts[0].replace(MASK, "[MASK]"))["input_ids"]


def distribution(share: float, **more):
    split = {"meta_train": ["books", "cars", "games", "hotels", "music"], "meta_validation": ["garden"], "meta_test": ["films"]}
    splits = {name: SplitConfig(tasks=tasks) for name, tasks in split.items()}
    settings = MaskedWordsConfig(share=share, way=3, min_sentences=5, max_sentences=50)
    return load_tasks(TasksConfig(path=REVIEWS, task="domain", masked_words=settings, **splits, **more), 0)


def test_a_share_of_the_training_episodes_is_of_masked_words():
    tasks = distribution(0.5)
    assert [task.name for task in tasks.meta_train] == ["books", "cars", "games", "hotels", "music", "masked words"]
    assert any("50% of the training episodes" in note for note in tasks.notes)
    settings = EpisodeConfig(shots=2, queries=2)
    episodes = [training_episode(tasks, settings, 0, index) for index in range(200)]
    kinds = Counter(episode.task.name == "masked words" for episode in episodes)
    assert 75 < kinds[True] < 125
    assert {episode.way for episode in episodes} == {2, 3}
    only = distribution(1.0)
    assert {training_episode(only, settings, 0, index).task.name for index in range(50)} == {"masked words"}


def test_held_out_texts_are_not_among_them(tmp_path):
    """From a text file that holds everything, the sentences of validation and test tasks are left out."""
    table = read_file(embedded_path(REVIEWS), Columns("text", "label", "domain"))
    path = tmp_path / "all.txt"
    path.write_text("\n".join(text.replace("\n", " ") for text in table.texts), encoding="utf-8")
    tasks = load_tasks(
        TasksConfig(
            path=REVIEWS,
            task="domain",
            meta_train=SplitConfig(tasks=["books"]),
            meta_validation=SplitConfig(tasks=["garden"]),
            meta_test=SplitConfig(tasks=["films"]),
            masked_words=MaskedWordsConfig(share=0.5, path=str(path), way=3, min_sentences=5, max_share=1.0),
        ),
        0,
    )
    held_out = {text_key(text) for text, task in zip(table.texts, table.tasks) if task in ("garden", "films")}
    restored = {
        text_key(text.replace(MASK, tasks.meta_train[-1].label_names[label])) for text, label in zip(tasks.meta_train[-1].texts, tasks.meta_train[-1].labels)
    }
    assert restored and not restored & held_out


def test_tasks_are_drawn_by_their_size():
    tasks = distribution(0.0, size_power=1.0)
    sizes = np.array([len(task.texts) for task in tasks.meta_train])
    np.testing.assert_allclose(tasks.weights, sizes / sizes.sum())
    assert distribution(0.0).weights is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 2.0}, "tasks.masked_words.share=2.0"),
        ({"share": 0.5, "way": 1}, "tasks.masked_words.way=1"),
        ({"share": 0.5, "max_share": 0.0}, "tasks.masked_words.max_share=0.0"),
        ({"share": 0.5, "max_sentences": 3}, "tasks.masked_words.max_sentences=3"),
        ({"share": 0.5, "path": "nowhere.txt"}, "nowhere.txt: no such file"),
    ],
)
def test_values_that_make_no_sense(settings, words):
    with pytest.raises(UserError, match=words):
        load_tasks(
            TasksConfig(path=REVIEWS, task="domain", meta_train=SplitConfig(tasks=["*"]), holdout=0.1, masked_words=MaskedWordsConfig(**settings)),
            0,
        )


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"fine\nbad \xff\n", "all.txt:2: not valid UTF-8")])
def test_a_bad_text_file_is_named(tmp_path, content, words):
    path = tmp_path / "all.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_tasks(
            TasksConfig(path=REVIEWS, task="domain", meta_train=SplitConfig(tasks=["*"]), masked_words=MaskedWordsConfig(share=0.5, path=str(path))),
            0,
        )
