"""Checks of the settings of a method: which choices are possible together."""

from __future__ import annotations

from collections.abc import Sequence

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import check_observes, make_inner_rule
from metatrain.gradient.meta_gradient import check_method, missing_observations, mode_of
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.contrastive import check_contrastive
from metatrain.meta.inner_losses import inner_loss
from metatrain.meta.noise import check_noise
from metatrain.meta.schedule import method_at
from metatrain.models.adapted import check_choice, row_of
from metatrain.models.config import ModelConfig
from metatrain.models.heads import RULES, head_facts, make_head
from metatrain.tasks.task import Task

TRAINED = ("all", "adapted")


def check_algorithm(algorithm: AlgorithmConfig, inner: InnerConfig, model: ModelConfig) -> None:
    """Refuse an impossible method before a model is loaded.

    Raises:
        UserError: a choice on an axis is unknown, a value makes no sense, or choices do not go together.
    """
    head = head_facts(algorithm.head)
    if not head.is_language_model:
        make_head(algorithm.head, algorithm.head_scale)
    check_choice(algorithm.adapt, algorithm.pattern)
    adapted = row_of(algorithm.adapt)
    rule = make_inner_rule(inner)
    for key in ("rank", "context_size", "label_names_weight"):
        if getattr(algorithm, key) < 1:
            raise UserError(f"algorithm.{key}={getattr(algorithm, key)} must be 1 or more")
    if algorithm.train not in TRAINED:
        raise UserError(f"algorithm.train={algorithm.train} is unknown; choose one of {', '.join(TRAINED)}")
    for key in ("proximal", "cg_steps", "multi_step_until", "first_order_until"):
        if not 0 <= getattr(algorithm, key) < float("inf"):
            raise UserError(f"algorithm.{key}={getattr(algorithm, key)} must be a finite number, zero or more")
    check_method(method_at(algorithm, inner.steps, 0), inner.steps)
    no_features = {"features": f"a language model (algorithm.head={algorithm.head}) has no encodings; choose another inner.rule"}
    missing = {**(no_features if head.is_language_model else {}), **missing_observations(algorithm.meta_gradient)}
    check_observes(rule, f"inner.rule={inner.rule}", missing)
    check_noise(algorithm)
    check_contrastive(algorithm)
    if head.is_language_model:
        _check_language(algorithm, inner)
    else:
        _check_head(algorithm, inner, model)
    if adapted.starts_at_zero and not mode_of(algorithm.meta_gradient).uses_query_gradient:
        raise UserError(
            f"algorithm.meta_gradient={algorithm.meta_gradient} trains the initial adapted parameters, but those of algorithm.adapt={algorithm.adapt} "
            "always start at zero; change one of the two"
        )
    if algorithm.train == "adapted" and not adapted.model_adapts and not head.learns:
        raise UserError(
            f"algorithm.train=adapted leaves nothing to train with algorithm.adapt={algorithm.adapt} and algorithm.head={algorithm.head}; "
            "change one of the three"
        )


def check_label_sets(tasks: Sequence[Task], algorithm: AlgorithmConfig, inner: InnerConfig) -> None:
    """Refuse a method that does not learn from several labels per text, if a task has them.

    Raises:
        UserError: the head, the inner loss, the contrastive term or the fit of the encoder needs one label per text.
    """
    name = next((task.name for task in tasks if task.label_sets is not None), None)
    if name is None:
        return
    several = f"task '{name}' has several labels per text"
    if not head_facts(algorithm.head).reads_label_sets:
        heads = ", ".join(name for name in RULES if head_facts(name).reads_label_sets)
        raise UserError(f"{several}, which algorithm.head={algorithm.head} does not learn from; choose algorithm.head={heads.replace(', ', ' or ')}")
    if algorithm.contrastive is not None:
        raise UserError(f"{several}, and algorithm.contrastive={algorithm.contrastive} compares texts by their one label; set algorithm.contrastive=null")
    if inner_loss(inner.loss).head_after:
        raise UserError(f"{several}, which inner.loss={inner.loss} does not learn from; set inner.loss=support")
    if inner.fit_encoder:
        raise UserError(f"{several}, and inner.fit_encoder trains the encoder on one label per text; set inner.fit_encoder=false")


def reads_label_names(algorithm: AlgorithmConfig) -> bool:
    """Return whether a method reads the label names, as further support texts or in its head."""
    return algorithm.label_names or head_facts(algorithm.head).reads_label_encodings


def _check_head(algorithm: AlgorithmConfig, inner: InnerConfig, model: ModelConfig) -> None:
    """Check that the head can tell the classes apart by the end of the inner loop."""
    head, adapted = head_facts(algorithm.head), row_of(algorithm.adapt)
    if inner.fit_encoder and not inner.fit_head:
        raise UserError("inner.fit_encoder starts from a fitted head: also set inner.fit_head=true, or remove it")
    head_after = inner_loss(inner.loss).head_after
    if head_after:
        _check_head_after(algorithm, inner)
    if inner.fit_head and adapted.model_adapts and not head_after:
        raise UserError(
            f"inner.fit_head=true needs a method that adapts only the head, but algorithm.adapt={algorithm.adapt}; set algorithm.adapt=head "
            '(Python: adapt="head"), or inner.fit_head=false'
        )
    if inner.fit_head and not head.is_linear:
        raise UserError(
            f"inner.fit_head=true fits a linear head, and algorithm.head={algorithm.head} is not linear; "
            "set inner.fit_head=false, or choose algorithm.head=cosine"
        )
    if head.reads_word_embeddings:
        _check_words(algorithm, inner)
    if algorithm.label_names and (head.reads_label_encodings or head.reads_word_embeddings):
        raise UserError(f"algorithm.label_names=true: algorithm.head={algorithm.head} already reads the label names; set algorithm.label_names=false")
    if head.needs_normalized and not model.normalize:
        raise UserError(f"algorithm.head={algorithm.head} uses cosine similarity: set model.normalize=true, or choose algorithm.head=prototype")
    if not head.knows_classes:  # the same row for every class before the first inner step
        if not adapted.head_adapts:
            raise UserError(
                f"algorithm.adapt={algorithm.adapt} does not adapt the head, and algorithm.head={algorithm.head} is the same for every class; "
                "choose algorithm.head=prototype"
            )
        if 0 in (inner.steps, inner.evaluation_steps):
            raise UserError(f"algorithm.head={algorithm.head} learns the classes only by inner steps; set inner.steps, or choose algorithm.head=prototype")
    if head.row_per_label:  # zeros for labels that no training task has
        steps = inner.steps if inner.evaluation_steps is None else inner.evaluation_steps
        if not adapted.head_adapts or steps == 0:
            raise UserError(
                f"algorithm.head={algorithm.head} learns new labels only by inner steps on the head; set inner.evaluation_steps and another algorithm.adapt"
            )


def _check_words(algorithm: AlgorithmConfig, inner: InnerConfig) -> None:
    """Check a head whose rows are the word embeddings of the model, so that it adapts only with the model."""
    if inner.fit_head:
        raise UserError(
            f"inner.fit_head=true fits the rows of a head, and those of algorithm.head={algorithm.head} are word embeddings; set inner.fit_head=false"
        )
    if not row_of(algorithm.adapt).model_adapts and {inner.steps, inner.evaluation_steps} - {0, None}:
        raise UserError(
            f"algorithm.adapt={algorithm.adapt} adapts nothing, because the rows of algorithm.head={algorithm.head} are word embeddings; "
            "choose algorithm.adapt=all or last_layers, or set inner.steps=0"
        )


def _check_head_after(algorithm: AlgorithmConfig, inner: InnerConfig) -> None:
    """Check that the encoder adapts, and that the head is made from its encodings after the inner steps."""
    if not row_of(algorithm.adapt).model_adapts:
        raise UserError(
            f"inner.loss={inner.loss} is a loss of the encodings, which algorithm.adapt={algorithm.adapt} does not change; choose algorithm.adapt=last_layers"
        )
    if not head_facts(algorithm.head).needs_support:
        raise UserError(
            f"inner.loss={inner.loss} makes the head from the support encodings after the inner steps, which algorithm.head={algorithm.head} does not read; "
            "choose algorithm.head=prototype"
        )
    if inner.fit_encoder:
        raise UserError(f"inner.fit_encoder trains the encoder, as inner.loss={inner.loss} already does; remove one of the two")


def _check_language(algorithm: AlgorithmConfig, inner: InnerConfig) -> None:
    """Check that a language model learns a task in its own parameters, or reads it."""
    if inner.fit_head:
        raise UserError(f"inner.fit_head: a language model (algorithm.head={algorithm.head}) has no classification head; remove it")
    head = head_facts(algorithm.head)
    steps = {inner.steps, inner.steps if inner.evaluation_steps is None else inner.evaluation_steps}
    if head.reads_support and steps != {0}:
        raise UserError(f"algorithm.head={algorithm.head} reads the support set and has no inner loop: set inner.steps=0 and inner.evaluation_steps=null")
    if not head.reads_support and not row_of(algorithm.adapt).model_adapts and steps != {0}:
        raise UserError(f"algorithm.adapt={algorithm.adapt}: a language model (algorithm.head={algorithm.head}) has no classification head; choose another")
    if inner.loss != "support":
        raise UserError(f"inner.loss={inner.loss}: a language model (algorithm.head={algorithm.head}) has no classification head; remove it")
    if algorithm.label_names:
        raise UserError(f"algorithm.label_names: a language model (algorithm.head={algorithm.head}) already generates label names; remove it")
    if algorithm.meta_dropout or algorithm.information_penalty:
        raise UserError(f"algorithm.meta_dropout and algorithm.information_penalty need encodings, and algorithm.head={algorithm.head} has none; remove them")
