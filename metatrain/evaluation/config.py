"""Settings of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.gradient.config import InnerConfig


@dataclass
class FullFinetuneConfig(InnerConfig):
    """Full finetuning of the encoder on a support set, in batches of 16 (config node `evaluation.full_finetune`)."""

    rule: str = "adam"  # optimiser; only adam
    lr: float = 5e-5  # learning rate of the encoder, used where there is no meta-validation task to choose one on
    head_lr: float | None = 0.01  # learning rate of the head, which starts at zero
    steps: int = 200  # number of updates
    rates: list[float] = field(default_factory=lambda: [2e-5, 5e-5, 1e-4])  # learning rates to choose from on meta-validation tasks; []: use `lr`


@dataclass
class EvaluationConfig:
    """Comparison of arms (methods compared on the same meta-test episodes; config node `evaluation`)."""

    # Seed of the test episodes and of the choice of held-out tasks (tasks.holdout); null: the run's own seed. Fix it to compare seeds, so that
    # only training varies: metatrain train evaluation.seed=0 -m seed=0,1,2
    seed: int | None = None
    episodes: int = 50  # number of episodes per meta-test task and number of shots
    # Numbers of support examples per class; the arms are compared once for each. `arms` in results.json: scores at the first number.
    shots: list[int] = field(default_factory=lambda: [5])
    way: int | str | None = None  # classes per episode: a number or a range, as in episode.way; null: the same as in training (episode.way)
    queries: int | None = 50  # query examples per class, fewer if a class has fewer; null: every row that is not in the support set
    # Arms to compare, such as [meta_trained,logistic_regression]. The meta-trained model: meta_trained, full_finetune_of_trained (full
    # finetuning of its encoder). The same encoder before meta-training: no_meta_training (the same method; fits the head if that does),
    # logistic_regression (L2 strength chosen on the support set), prototypes, full_finetune (200 updates, many seconds per episode), setfit
    # (extra `compare`). Joint training: joint (its own head), joint_logistic_regression. With label names as extra examples:
    # logistic_regression_with_names, setfit_with_names. Diagnostics of what the model uses: shuffled_labels, names_only, without_adaptation.
    # null: all that apply and need no training of their own. []: no meta-test.
    arms: list[str] | None = None
    joint: str | None = None  # run of algorithm=multitask on the same tasks, for the arms of joint training; null: none
    full_finetune: FullFinetuneConfig = field(default_factory=FullFinetuneConfig)  # settings of the arms full_finetune and full_finetune_of_trained
    resamples: int | None = None  # unused: intervals are computed in closed form; still accepted in configurations of earlier versions

    def seed_of(self, seed: int) -> int:
        """The seed of the test episodes of a run with this seed."""
        return seed if self.seed is None else self.seed
