"""Checks of the settings of a method: which choices are possible together."""

from __future__ import annotations

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import make_inner_rule
from metatrain.gradient.meta_gradient import check_method
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.contrastive import check_contrastive
from metatrain.meta.noise import check_noise
from metatrain.meta.schedule import method_at
from metatrain.models.adapted import HEAD_STAYS, check_choice
from metatrain.models.config import ModelConfig
from metatrain.models.heads import IN_CONTEXT, LANGUAGE, make_head

TRAINED = ("all", "adapted")


def check_algorithm(algorithm: AlgorithmConfig, inner: InnerConfig, model: ModelConfig) -> None:
    """Refuse an impossible method before a model is loaded.

    Raises:
        UserError: a choice on an axis is unknown, a value makes no sense, or choices do not go together.
    """
    if algorithm.head not in LANGUAGE:
        make_head(algorithm.head, algorithm.head_scale)
    check_choice(algorithm.adapt, algorithm.pattern)
    make_inner_rule(inner)
    for key in ("rank", "context_size"):
        if getattr(algorithm, key) < 1:
            raise UserError(f"algorithm.{key}={getattr(algorithm, key)} must be 1 or more")
    if algorithm.train not in TRAINED:
        raise UserError(f"algorithm.train={algorithm.train} is unknown; choose one of {', '.join(TRAINED)}")
    for key in ("proximal", "cg_steps", "multi_step_until", "first_order_until"):
        if not 0 <= getattr(algorithm, key) < float("inf"):
            raise UserError(f"algorithm.{key}={getattr(algorithm, key)} must be a finite number, zero or more")
    check_method(method_at(algorithm, inner.steps, 0), inner.steps)
    check_noise(algorithm)
    check_contrastive(algorithm)
    if algorithm.head in LANGUAGE:
        _check_language(algorithm, inner)
    else:
        _check_head(algorithm, inner, model)
    if algorithm.adapt == "context" and algorithm.meta_gradient == "reptile":
        raise UserError("algorithm.meta_gradient=reptile trains the initial adapted parameters, but a context always starts at zero; change one of the two")
    if algorithm.train == "adapted" and algorithm.adapt == "head" and algorithm.head == "zero":
        raise UserError("algorithm.train=adapted leaves nothing to train with algorithm.adapt=head and algorithm.head=zero; change one of the three")


def _check_head(algorithm: AlgorithmConfig, inner: InnerConfig, model: ModelConfig) -> None:
    """Check that the head can tell the classes apart by the end of the inner loop."""
    if inner.fit_encoder and not inner.fit_head:
        raise UserError("inner.fit_encoder starts from a fitted head: also set inner.fit_head=true, or remove it")
    if inner.fit_head and algorithm.adapt != "head":
        raise UserError(
            f"inner.fit_head=true needs a method that adapts only the head, but algorithm.adapt={algorithm.adapt}; set algorithm.adapt=head "
            '(Python: adapt="head"), or inner.fit_head=false'
        )
    if algorithm.head == "cosine" and not model.normalize:
        raise UserError("algorithm.head=cosine uses cosine similarity: set model.normalize=true, or choose algorithm.head=prototype")
    if algorithm.head in ("zero", "shared"):  # the same row for every class before the first inner step
        if algorithm.adapt in HEAD_STAYS:
            raise UserError(
                f"algorithm.adapt={algorithm.adapt} does not adapt the head, and algorithm.head={algorithm.head} is the same for every class; "
                "choose algorithm.head=prototype"
            )
        if 0 in (inner.steps, inner.evaluation_steps):
            raise UserError(f"algorithm.head={algorithm.head} learns the classes only by inner steps; set inner.steps, or choose algorithm.head=prototype")
    if algorithm.head == "joint":  # zeros for labels that no training task has
        steps = inner.steps if inner.evaluation_steps is None else inner.evaluation_steps
        if algorithm.adapt in HEAD_STAYS or steps == 0:
            raise UserError("algorithm.head=joint learns new labels only by inner steps on the head; set inner.evaluation_steps and another algorithm.adapt")


def _check_language(algorithm: AlgorithmConfig, inner: InnerConfig) -> None:
    """Check that a language model learns a task in its own parameters, or reads it."""
    if inner.fit_head:
        raise UserError(f"inner.fit_head: a language model (algorithm.head={algorithm.head}) has no classification head; remove it")
    steps = {inner.steps, inner.steps if inner.evaluation_steps is None else inner.evaluation_steps}
    if algorithm.head == IN_CONTEXT and steps != {0}:
        raise UserError("algorithm.head=in_context reads the support set and has no inner loop: set inner.steps=0 and inner.evaluation_steps=null")
    if algorithm.head != IN_CONTEXT and algorithm.adapt == "head" and steps != {0}:
        raise UserError(f"algorithm.adapt=head: a language model (algorithm.head={algorithm.head}) has no classification head; choose another")
    if algorithm.label_names:
        raise UserError(f"algorithm.label_names: a language model (algorithm.head={algorithm.head}) already generates label names; remove it")
    if algorithm.meta_dropout or algorithm.information_penalty:
        raise UserError(f"algorithm.meta_dropout and algorithm.information_penalty need encodings, and algorithm.head={algorithm.head} has none; remove them")
