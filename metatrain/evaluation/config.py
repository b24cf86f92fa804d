"""Settings of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.conditions import Condition, Place, Unread, either, never, when
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.tasks.config import SAMPLED


def _no_evaluation(place: Place) -> Unread | None:
    return Unread("evaluation.arms=[] skips the meta-test", "name arms", is_switched_off=True) if place.value("evaluation.arms") == [] else None


def _not_read_by_arms(place: Place) -> Unread | None:
    if place.is_read_by(place.facts("evaluation.arms")):
        return None
    return Unread("no arm of the meta-test reads it", f"add {either(place.readers('evaluation.arms'))} to evaluation.arms")


EVALUATION = Condition(_no_evaluation, lambda place: "there is a meta-test (evaluation.arms)")
READ_BY_ARM = Condition(_not_read_by_arms, lambda place: f"evaluation.arms has {either(place.readers('evaluation.arms'))}")


@dataclass
class FullFinetuneConfig(InnerConfig):
    """Full finetuning of the encoder on a support set, in batches of 16 (config node `evaluation.full_finetune`)."""

    rule: str = field(default="adam", metadata=when(never("full finetuning always uses Adam")))  # optimiser; only adam
    lr: float = field(default=5e-5, metadata=when())  # learning rate of the encoder, used where there is no meta-validation task to choose one on
    head_lr: float | None = field(default=0.01, metadata=when())  # learning rate of the head, which starts at zero
    rank: int = field(default=8, metadata=when(never("full finetuning has no learned matrices")))  # unused
    steps: int = 200  # number of updates
    fit_head: bool = field(default=False, metadata=when(never("full finetuning fits no head")))  # unused
    fit_encoder: bool = field(default=False, metadata=when(never("full finetuning always trains the encoder")))  # unused
    evaluation_steps: int | None = field(default=None, metadata=when(never("evaluation.full_finetune.steps is the number of updates")))  # unused
    rates: list[float] = field(default_factory=lambda: [2e-5, 5e-5, 1e-4])  # learning rates to choose from on meta-validation tasks; []: use `lr`


@dataclass
class LoraConfig:
    """LoRA finetuning of a language model on a support set with Adam (config node `evaluation.lora`)."""

    rank: int = 8  # rank of the LoRA matrices
    lr: float = 1e-3  # learning rate
    steps: int = 20  # number of updates, each on the whole support set


@dataclass
class EvaluationConfig:
    """Comparison of arms (models and baselines, on the same meta-test episodes; config node `evaluation`)."""

    # Seed of the test episodes and of the choice of held-out tasks (tasks.holdout); null: the run's own seed. Fix it to compare seeds, so that
    # only training varies: metatrain train evaluation.seed=0 -m seed=0,1,2
    seed: int | None = None
    episodes: int = field(default=50, metadata=when(EVALUATION, SAMPLED))  # number of episodes per meta-test task and number of shots
    # Numbers of support examples per class; the arms are compared once for each. `arms` in results.json: scores at the first number.
    shots: list[int] = field(default_factory=lambda: [5], metadata=when(EVALUATION, SAMPLED))
    # Classes per episode: a number or a range, as in episode.way; null: the same as in training (episode.way).
    way: int | str | None = field(default=None, metadata=when(EVALUATION, SAMPLED))
    # Query examples per class, fewer if a class has fewer; null: every row that is not in the support set.
    queries: int | None = field(default=50, metadata=when(EVALUATION, SAMPLED))
    # Arms to compare, such as [meta_trained,logistic_regression]. The meta-trained model: meta_trained, full_finetune_of_trained (full finetuning
    # of its encoder). The same encoder before meta-training: no_meta_training (the same method; fits the head if that does), logistic_regression
    # (L2 strength chosen on the support set), prototypes, nearest_neighbour, full_finetune (200 updates, many seconds per episode), setfit (extra
    # `compare`). A language model before meta-training: zero_shot, in_context (the support set in its prompt), each also with _calibrated
    # probabilities, lora (finetuning, evaluation.lora). Joint training: joint (its own head), joint_logistic_regression. With label names as extra
    # examples: logistic_regression_with_names, setfit_with_names. With texts without labels (evaluation.unlabelled): meta_trained_with_unlabelled.
    # Diagnostics of what the model uses: shuffled_labels, names_only, without_adaptation. null: all that apply and need no training of their own.
    # []: no meta-test.
    arms: list[str] | None = None
    # Further metrics of each arm, beside accuracy and balanced accuracy: macro_f1 | mcc (Matthews' correlation), or the names of plug-ins.
    metrics: list[str] = field(default_factory=list, metadata=when(EVALUATION))
    # Run of algorithm=multitask on the same tasks, for the arms of joint training; null: none.
    joint: str | None = field(default=None, metadata=when(EVALUATION, READ_BY_ARM))
    # Settings of the arms full_finetune and full_finetune_of_trained.
    full_finetune: FullFinetuneConfig = field(default_factory=FullFinetuneConfig, metadata=when(EVALUATION, READ_BY_ARM))
    # Texts without labels per episode, for the arm meta_trained_with_unlabelled: at most this number of rows of the episode's classes that are in
    # neither the support set nor the queries, as they occur in the task.
    unlabelled: int = field(default=200, metadata=when(EVALUATION, READ_BY_ARM))
    # Settings of the arm lora.
    lora: LoraConfig = field(default_factory=LoraConfig, metadata=when(EVALUATION, READ_BY_ARM))
    # Unused: intervals are computed in closed form; still accepted in configurations of earlier versions.
    resamples: int | None = field(default=None, metadata=when(never("intervals are computed in closed form")))

    def seed_of(self, seed: int) -> int:
        """The seed of the test episodes of a run with this seed."""
        return seed if self.seed is None else self.seed


def check_unlabelled(config: EvaluationConfig) -> None:
    """Raises: UserError: no rows can be drawn as texts without labels."""
    if config.unlabelled < 1:
        raise UserError(f"evaluation.unlabelled={config.unlabelled} must be 1 or more")
    if config.queries is None:
        raise UserError("evaluation.queries=null makes every row a query and leaves no texts without labels (evaluation.unlabelled); give a number")


def check_lora(config: EvaluationConfig) -> None:
    """Raises: UserError: a value of `evaluation.lora` makes no sense."""
    for key in ("rank", "steps"):
        if getattr(config.lora, key) < 1:
            raise UserError(f"evaluation.lora.{key}={getattr(config.lora, key)} must be 1 or more")
    if not 0 < config.lora.lr < float("inf"):
        raise UserError(f"evaluation.lora.lr={config.lora.lr}: a learning rate must be a finite number above zero")
