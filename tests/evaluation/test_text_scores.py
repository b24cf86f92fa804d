"""Scores of written answers are those of the libraries they are named after, from 0 to 1."""

import pytest

from metatrain.errors import UserError
from metatrain.evaluation.text_scores import SCORES, check_score

ANSWERS = ["the cat sat on the mat", "hello there"]
TARGETS = ["the cat sat on a mat", "Hello, there!"]


def test_every_score_is_1_for_the_targets_and_0_for_nothing():
    for name, score in SCORES.items():
        check_score(name)
        assert score(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(1), name
        assert score(["", ""], TARGETS) == 0, name


def test_scores_by_hand():
    # 5 of 6 words of the first match in both directions; of the second both, without case and punctuation.
    assert SCORES["rouge1"](ANSWERS, TARGETS) == pytest.approx((5 / 6 + 1) / 2)
    assert SCORES["rouge2"](ANSWERS, TARGETS) == pytest.approx((3 / 5 + 1) / 2)
    assert SCORES["rougeL"](ANSWERS, TARGETS) == pytest.approx((5 / 6 + 1) / 2)
    assert SCORES["exact_match"](ANSWERS, TARGETS) == 0.5


def test_sacrebleu_is_what_it_says():
    import sacrebleu

    assert SCORES["bleu"](ANSWERS, TARGETS) == pytest.approx(sacrebleu.BLEU(effective_order=True).corpus_score(ANSWERS, [TARGETS]).score / 100)
    assert SCORES["chrf"](ANSWERS, TARGETS) == pytest.approx(sacrebleu.CHRF().corpus_score(ANSWERS, [TARGETS]).score / 100)


def test_an_unknown_score_is_refused():
    with pytest.raises(UserError, match="tasks.score=meteor is unknown; choose one of chrf"):
        check_score("meteor")
