"""What a user may set about evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.meta.config import InnerConfig

JOINT = ("joint", "joint_logistic_regression")  # arms of a run of joint training
# Arms that language models have not.
ENCODINGS_ONLY = (
    *("logistic_regression", "logistic_regression_with_names", "prototypes", "names_only"),
    *("full_finetune", "full_finetune_of_trained", "setfit", "setfit_with_names"),
    *JOINT,
)
OF_TRAINED = ("without_adaptation", "shuffled_labels", "names_only")  # arms that show what the meta-trained model learns from
ARMS = ("meta_trained", "no_meta_training", "without_adaptation", "shuffled_labels", *ENCODINGS_ONLY)


@dataclass
class FullFinetuneConfig(InnerConfig):
    """Training the whole encoder on a support set, in batches of 16."""

    rule: str = "adam"  # adam, no other
    lr: float = 5e-5  # of the encoder, where there is no meta-validation task to choose one by
    head_lr: float | None = 0.01  # of the head, which begins at zero
    steps: int = 200  # updates
    rates: list[float] = field(default_factory=lambda: [2e-5, 5e-5, 1e-4])  # of the encoder, of which one is chosen on meta-validation tasks; []: lr


@dataclass
class EvaluationConfig:
    """Comparison of arms on the same meta-test episodes (config node `evaluation`)."""

    # Seed of the test episodes, and of which tasks are held out by chance (tasks.holdout); null: the run's own seed. Set it where seeds
    # are compared, so that only training varies: metatrain train evaluation.seed=0 -m seed=0,1,2
    seed: int | None = None
    episodes: int = 50  # per meta-test task and number of shots
    shots: list[int] = field(default_factory=lambda: [5])  # support examples per class; results.json's `arms` are of the first
    way: int | None = None  # classes per episode; null: as many as in training (episode.way)
    queries: int | None = 50  # query examples per class, fewer where a class has no more; null: every row not in the support set
    # meta_trained; of the same encoder before meta-training: no_meta_training (the same method, with a fitted head where it has one),
    # logistic_regression (a head whose strength is chosen on the support set), prototypes, full_finetune (200 updates: many seconds an
    # episode), setfit (with the extra `compare`); of joint training: joint (its own head), joint_logistic_regression. To see what
    # it learns from: shuffled_labels, names_only, without_adaptation. Of the meta-trained encoder too: full_finetune_of_trained. With the
    # names of the classes as examples: logistic_regression_with_names, setfit_with_names. null: those of these that cost no training of
    # their own. []: train does no meta-test.
    arms: list[str] | None = None
    joint: str | None = None  # a run of algorithm=multitask on the same tasks, for the arms of joint training
    full_finetune: FullFinetuneConfig = field(default_factory=FullFinetuneConfig)  # of the arms full_finetune and full_finetune_of_trained
    resamples: int | None = None  # no longer used, since intervals are in closed form; configurations of earlier versions have it

    def seed_of(self, seed: int) -> int:
        """The seed of the test episodes of a run with this seed."""
        return seed if self.seed is None else self.seed
