"""The embedded corpus: balanced, without repetition, short, and free of give-aways."""

import json
from collections import Counter

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from metatrain.tasks.embedded import embedded_path
from metatrain.tasks.keys import text_key

ROWS = [json.loads(line) for line in embedded_path("metatrain:reviews").read_text(encoding="utf-8").splitlines()]


def test_at_least_sixteen_domains_of_sixty_half_of_them_positive():
    counts = Counter((row["domain"], row["label"]) for row in ROWS)
    domains = {domain for domain, _ in counts}
    assert len(domains) >= 16
    for domain in domains:
        assert counts[domain, "positive"] == counts[domain, "negative"] >= 30


def test_no_text_is_repeated():
    assert len({text_key(row["text"]) for row in ROWS}) == len(ROWS)


def test_reviews_are_short_and_neither_class_is_longer():
    words = {label: [len(row["text"].split()) for row in ROWS if row["label"] == label] for label in ("positive", "negative")}
    for lengths in words.values():
        assert min(lengths) >= 2 and max(lengths) <= 40
    assert abs(np.mean(words["positive"]) - np.mean(words["negative"])) < 3


def test_some_words_change_sides_with_the_domain():
    for word in ("unpredictable",):
        labels = {(row["domain"], row["label"]) for row in ROWS if word in row["text"].lower()}
        assert {label for _, label in labels} == {"positive", "negative"}
        assert len({domain for domain, _ in labels}) >= 4


def test_no_single_word_gives_the_label_away():
    counts = CountVectorizer(binary=True).fit_transform([row["text"] for row in ROWS])
    labels = np.array([row["label"] == "positive" for row in ROWS])
    frequent = np.asarray(counts.sum(0)).ravel() >= 60
    share = np.asarray(counts[labels].sum(0)).ravel()[frequent] / np.asarray(counts.sum(0)).ravel()[frequent]
    assert share.min() > 0.2 and share.max() < 0.8
