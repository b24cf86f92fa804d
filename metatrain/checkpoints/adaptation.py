"""Adapt a learner to labelled examples, for `metatrain finetune` and the Python API."""

from __future__ import annotations

from collections.abc import Iterable

from metatrain.errors import UserError
from metatrain.gradient.parameters import Parameters
from metatrain.meta.head_fit import Fit
from metatrain.meta.learner import Learner
from metatrain.meta.progress import Progress
from metatrain.models.export import ExportedHead
from metatrain.models.finetuned_folder import NONE
from metatrain.models.heads import head_facts
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.labels import folded


def check_none_of_these(share: float | None, learner: Learner) -> None:
    """Raises: UserError: `oos_false_rejection_rate` is not a fraction, or the learner does not fit a head, which the threshold needs."""
    if share is None:
        return
    if not 0 < share < 1:
        raise UserError(f"oos_false_rejection_rate={share} is the fraction of in-scope texts that may be rejected; set it between 0 and 1, 0.05 for example")
    check_fits_head("oos_false_rejection_rate", learner)


def check_fits_head(setting: str, learner: Learner) -> None:
    """Raises: UserError: the learner does not fit a head to the examples, which a setting that is given needs."""
    if learner.inner.fit_head:
        return
    missing = (
        "inner.fit_head=true (Python: fit_head=True)"
        if learner.functional.head_after
        else 'inner.fit_head=true algorithm.adapt=head (Python: fit_head=True, adapt="head")'
    )
    raise UserError(f"{setting} needs a head fitted to the examples: set {missing}")


def check_no_label_is_none(labels: Iterable[str], source: str) -> None:
    """Raises: UserError: with `oos_false_rejection_rate`, a label of the examples is spelled like the prediction for out-of-scope texts."""
    if (found := next((label for label in labels if folded(label) == folded(NONE)), None)) is not None:
        near = "" if found == NONE else f" (nearly {NONE})"
        raise UserError(
            f"{source}: the label {found}{near} is reserved for out-of-scope texts; rename it, remove its examples, or remove oos_false_rejection_rate"
        )


def exported_head(learner: Learner) -> ExportedHead | None:
    """Return the settings of a learner's head, if a finetuned model needs them: if it is not linear.

    Raises:
        UserError: the head is transductive.
    """
    algorithm = learner.algorithm
    facts = head_facts(algorithm.head)
    if facts.reads_queries:
        raise UserError(
            f"algorithm.head={algorithm.head} predicts the queries of an episode together, and a finetuned model predicts single texts; "
            "meta-train with another head, algorithm.head=prototype for example"
        )
    return None if facts.is_linear else ExportedHead(algorithm.head, algorithm.head_scale)


def adapted_to(learner: Learner, texts: EncodedEpisode, progress: Progress | None = None) -> tuple[Parameters, float, Fit | None]:
    """Adapt to a support set; return all parameters, the last support loss, and the fit if the head was fitted.

    Raises:
        UserError: adaptation diverges.
    """
    adapted, loss, fit = learner.fit(texts, progress)
    if not all(bool(value.isfinite().all()) for name, value in adapted.items() if value is not learner.parameters.get(name)):
        raise UserError(
            f"adaptation to these examples diverges (non-finite values); lower inner.lr={learner.inner.lr:g} or inner.steps, or check the weights of the model"
        )
    return adapted, loss, fit
