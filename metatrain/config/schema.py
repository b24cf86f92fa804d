"""The typed configuration of each command: what may be set, of which type, with which default."""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from metatrain.evaluation.config import EvaluationConfig
from metatrain.meta.config import AlgorithmConfig, InnerConfig
from metatrain.models.config import ModelConfig
from metatrain.search.config import SearchConfig
from metatrain.tasks.config import EpisodeConfig, TasksConfig
from metatrain.tracking.config import TrackingConfig
from metatrain.training.config import CheckpointConfig, HardwareConfig, OuterConfig, ValidationConfig


@dataclass
class TrainConfig:
    """`metatrain train`, and what `metatrain resume` reads back; `plan` and `doctor` take the same settings."""

    name: str = "${algorithm.name}"  # of the run; its directory is outputs/train/NAME/RUN-ID
    seed: int = 0  # of every draw: episodes, random weights, bootstrap
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    report: bool = True  # at the end, look closer at the meta-test (accuracy by inner steps, mistakes, a map of the tasks) and write report.html


@dataclass
class SweepConfig(TrainConfig):
    """`metatrain sweep`: a search for settings of `metatrain train`, all of which it has too."""

    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass
class InnerOverrides:
    """Inner-loop settings that replace the checkpoint's own; null: as the checkpoint says."""

    lr: float | None = None  # of the encoder; null: the checkpoint's
    head_lr: float | None = None  # of the task's head; null: the checkpoint's
    steps: int | None = None  # inner steps; null: the checkpoint's
    fit_head: bool | None = None  # fit the head to the examples, where only the head adapts; null: as the checkpoint says, and yes for a plain model
    # then train the whole encoder on them too, as long as cross-validation says, minutes in place of seconds; null: as the checkpoint says
    fit_encoder: bool | None = None


@dataclass
class ModelOverrides:
    """Settings for a plain Hugging Face model; a run brings its own, as does a sentence-transformers pipeline."""

    pooling: str | None = None  # mean | first (BERT: through its pooler) | cls (first, without it) | last; null: the model's own, else mean
    normalize: bool | None = None  # encodings of length 1; null: as the model's own pipeline does, else no
    max_length: int | None = None  # longer texts are cut to this many tokens; null: the model's own, else 128
    revision: str | None = None  # of a hub model


@dataclass
class AlgorithmOverrides:
    """How a checkpoint adapts: a method for a plain Hugging Face model, or single settings in place of the checkpoint's own."""

    # A method (metatrain ls algorithms), for a plain Hugging Face model; algorithm=NAME is short for algorithm.name=NAME. null: a run's own
    # method; for a plain model `recommended`, or an inner loop of the whole encoder where settings of one are given.
    name: str | None = None
    head: str | None = None  # how the head of a task starts: zero | prototype | cosine (with model.normalize) | ...; null: the method's
    label_names: bool | None = None  # the name of each class is one more support text of it; null: as the method says
    adapt: str | None = None  # which parameters adapt: all | head | body | last_layers | layer_norm | pattern; null: the method's
    last_layers: int | None = None  # with adapt=last_layers: the number of layers that adapt; null: the method's
    pattern: str | None = None  # with adapt=pattern: a regular expression that is searched for in parameter names


@dataclass(frozen=True)
class Overrides:
    """What a command sets beside a checkpoint."""

    algorithm: AlgorithmOverrides = field(default_factory=AlgorithmOverrides)
    inner: InnerOverrides = field(default_factory=InnerOverrides)
    model: ModelOverrides = field(default_factory=ModelOverrides)


@dataclass
class EvaluateConfig:
    """`metatrain evaluate`: a checkpoint and the baseline arms on meta-test episodes."""

    name: str = "evaluation"  # of the run; its directory is outputs/evaluate/NAME/RUN-ID
    seed: int = 0  # of every draw: episodes, random weights, bootstrap
    checkpoint: str = MISSING  # a run directory | latest | a directory or hub id of a Hugging Face model
    tasks: TasksConfig | None = None  # null: the run's own tasks
    algorithm: AlgorithmOverrides = field(default_factory=AlgorithmOverrides)
    inner: InnerOverrides = field(default_factory=InnerOverrides)
    model: ModelOverrides = field(default_factory=ModelOverrides)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    report: bool = True  # at the end, look closer at the meta-test (accuracy by inner steps, mistakes, a map of the tasks) and write report.html


@dataclass
class DataConfig:
    """The labelled files of one new task."""

    train: str = MISSING  # csv, tsv, jsonl or parquet with the few examples, or a folder of pictures, LABEL/FILE
    test: str | None = None  # held-out examples, for the accuracy
    text: str = "text"  # column of the texts
    pair: str | None = None  # column of a second text that belongs to the first
    label: str = "label"  # column of the labels
    target: str | None = None  # text-to-text: column of the wanted texts, in place of `label`
    score: str = "chrf"  # text-to-text: chrf | bleu | rouge1 | rouge2 | rougeL | exact_match


@dataclass
class FinetuneConfig:
    """`metatrain finetune`: adapt a checkpoint to a new task and write a model directory."""

    name: str = "task"  # of the run; its directory is outputs/finetune/NAME/RUN-ID
    seed: int = 0  # of every draw: episodes, random weights, bootstrap
    checkpoint: str = MISSING  # a run directory | latest | a directory or hub id of a Hugging Face model
    data: DataConfig = field(default_factory=DataConfig)
    # With it, texts that are like no class are answered with none_of_these: the share of texts of the classes that this may cost, 0.05
    # say. Test rows with labels of their own count as such texts.
    none_of_these: float | None = None
    algorithm: AlgorithmOverrides = field(default_factory=AlgorithmOverrides)
    inner: InnerOverrides = field(default_factory=InnerOverrides)
    model: ModelOverrides = field(default_factory=ModelOverrides)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    report: bool = True  # write report.html


@dataclass
class FinetunedModelConfig:
    """Which finetuned model to use."""

    path: str = MISSING  # a directory written by `metatrain finetune` (the run directory or its model/) | latest


@dataclass
class PredictConfig:
    """`metatrain predict`: labels for a text or a file of texts."""

    name: str = "predictions"  # not used: predict makes no run directory
    model: FinetunedModelConfig = field(default_factory=FinetunedModelConfig)  # model=DIR is short for model.path=DIR
    text: str | None = None  # one text; or
    data: str | None = None  # csv, tsv, jsonl or parquet; a picture, or a folder of them; -: a text a line, from standard input
    column: str | None = None  # column of the texts in `data`; null: the one that `finetune` read
    pair: str | None = None  # column of the second texts, for a model of pairs; null: the one that `finetune` read
    output: str | None = (
        None  # where to write predictions of `data`: .csv, .tsv and .parquet with the input's columns, others as JSON lines; null: to standard output
    )
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


@dataclass
class PushConfig:
    """`metatrain push`: a model directory to the Hugging Face hub."""

    name: str = "push"  # not used: push makes no run directory
    model: FinetunedModelConfig = field(default_factory=FinetunedModelConfig)  # model=DIR is short for model.path=DIR
    repo: str = MISSING  # ORG/NAME; made if there is none
    public: bool = False  # whether a new repository can be seen by all
    message: str = "A model of metatrain"  # of the commit


@dataclass
class TasksCommandConfig:
    """`metatrain tasks`: what a task distribution holds, how alike its tasks are, and which to choose."""

    name: str = "tasks"  # not used: tasks makes no run directory
    seed: int = 0  # of every draw: episodes, random weights, bootstrap
    tasks: TasksConfig = field(default_factory=TasksConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    compare: str | None = None  # embedding (what texts mean) | task2vec (what a network would have to change); null: embedding, if a comparison is asked for
    target: str | None = None  # a task of the distribution, or a labelled file: how near is each training task?
    select: int | None = None  # how many training tasks to suggest
    nearness: float = 0.5  # of these: likeness to the target counts this much, unlikeness to each other the rest
    map: str | None = None  # draw the tasks into this file (.png, .svg, .pdf)
    model: ModelConfig = field(default_factory=ModelConfig)  # the encoder that compares
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


SCHEMAS = {
    "train": TrainConfig,
    "sweep": SweepConfig,
    "evaluate": EvaluateConfig,
    "finetune": FinetuneConfig,
    "predict": PredictConfig,
    "push": PushConfig,
    "tasks": TasksCommandConfig,
    "plan": TrainConfig,
    "doctor": TrainConfig,
}


def register() -> None:
    """Make the schemas known to Hydra as `COMMAND_schema`, the first entry of each conf/COMMAND.yaml."""
    store = ConfigStore.instance()
    for command, schema in SCHEMAS.items():
        store.store(name=f"{command}_schema", node=schema)
