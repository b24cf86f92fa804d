"""Scores of text-to-text tasks, from 0 to 1, over all queries of an episode.

chrF (Popovic 2015) and BLEU (Papineni et al. 2002): corpus scores of `sacrebleu` with its defaults. ROUGE (Lin 2004): mean F measure of
`rouge-score` over the predictions, without stemming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metatrain.errors import UserError
from metatrain.plugins import check_installed
from metatrain.tasks.config import TasksConfig
from metatrain.tasks.keys import same_form

_SENTENCE_PUNCTUATION = dict.fromkeys(map(ord, ".,;:!?\"'…。、，；：！？“”‘’«»"), " ")


def _chrf(predictions: Sequence[str], targets: Sequence[str]) -> float:
    import sacrebleu

    return sacrebleu.corpus_chrf(list(predictions), [list(targets)]).score / 100


def _bleu(predictions: Sequence[str], targets: Sequence[str]) -> float:
    import sacrebleu

    # Smoothed as sentence BLEU is: with a few short queries, no 4-gram may match.
    return sacrebleu.corpus_bleu(list(predictions), [list(targets)], use_effective_order=True).score / 100


def _rouge(kind: str, predictions: Sequence[str], targets: Sequence[str]) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind])
    return sum(scorer.score(target, prediction)[kind].fmeasure for prediction, target in zip(predictions, targets)) / len(targets)


def _exact_match(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Return the fraction of predictions equal to their target up to case, whitespace and sentence punctuation; "-5" is not "5"."""
    return sum(_unpunctuated(prediction) == _unpunctuated(target) for prediction, target in zip(predictions, targets)) / len(targets)


def _unpunctuated(text: str) -> str:
    return same_form(text.translate(_SENTENCE_PUNCTUATION))


SCORES: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "chrf": _chrf,
    "bleu": _bleu,
    "rouge1": lambda predictions, targets: _rouge("rouge1", predictions, targets),
    "rouge2": lambda predictions, targets: _rouge("rouge2", predictions, targets),
    "rougeL": lambda predictions, targets: _rouge("rougeL", predictions, targets),
    "exact_match": _exact_match,
}


_MODULES = {"chrf": "sacrebleu", "bleu": "sacrebleu", "rouge1": "rouge_score", "rouge2": "rouge_score", "rougeL": "rouge_score"}


def check_score(name: str, setting: str = "tasks.score", computed: bool = True) -> None:
    """Raises: UserError: the score is unknown, or must be computed and its package is not installed."""
    if name not in SCORES:
        raise UserError(f"{setting}={name} is unknown; choose one of {', '.join(SCORES)}")
    if computed and name in _MODULES:
        check_installed(f"{setting}={name}", _MODULES[name], "text")


def check_scores(tasks: TasksConfig, computed: bool) -> None:
    """Check the scores of all text-to-text sources before tasks are read; raises what `check_score` raises."""
    for name, source in {"": tasks, **tasks.sources}.items():
        if source.target is not None:
            check_score(source.score, f"tasks.sources.{name}.score" if name else "tasks.score", computed)
