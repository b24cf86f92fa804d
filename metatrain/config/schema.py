"""The typed configuration of each command: settings, types and defaults."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from metatrain.conditions import Condition, Place, Unread, needs, never, when
from metatrain.config import plugin_prompts
from metatrain.evaluation.config import EvaluationConfig
from metatrain.gradient.config import ENCODER_ADAPTS, FIT_HEAD, HEAD_ADAPTS, INNER_STEPS, InnerConfig
from metatrain.meta.config import ADAPT, ADAPTS, ENCODINGS, AlgorithmConfig
from metatrain.models.config import ENCODES, GENERATES, OF_HUB, POOLS, PROMPTED, ModelConfig, PromptConfig
from metatrain.paths import local_path
from metatrain.run.config import CheckpointConfig, HardwareConfig
from metatrain.search.config import SearchConfig
from metatrain.tasks.config import SAMPLED, EpisodeConfig, TasksConfig
from metatrain.tracking.config import TrackingConfig
from metatrain.training.config import OuterConfig, ValidationConfig


def _no_columns(place: Place) -> Unread | None:
    if not local_path(str(place.value("data.train"))).is_dir():
        return None
    return Unread(f"{place.given('data.train')} is a folder, which has no columns", "give a file")


def _no_table(place: Place) -> Unread | None:
    return Unread(f"{place.given('data')} is a folder, which has no columns", "give a file") if local_path(str(place.value("data"))).is_dir() else None


def _one_label(place: Place) -> Unread | None:
    kind = _kind(place)
    return None if kind == "label" else Unread(f"data.kind={kind} fits a head to the frozen encoder", "leave data.kind out")


def _named(place: Place) -> Unread | None:
    return Unread("data.kind=number has no label names", "leave data.kind out") if _kind(place) == "number" else None


def _kind(place: Place) -> str:
    data = place.values.get("data")  # a group of `finetune` only
    return data["kind"] if isinstance(data, dict) else "label"


def _several_columns(place: Place) -> Unread | None:
    return Unread("each of data.label_columns is the column of a label", "leave data.label_columns out") if place.value("data.label_columns") else None


def _no_comparison(place: Place) -> Unread | None:
    if any(place.value(key) is not None for key in ("compare", "target", "select", "map", "show")):
        return None
    return Unread("no tasks are compared and no prompts shown", "set compare, target, select, map or show")


TABLE = Condition(_no_table, lambda place: "data is a file")
COLUMNS = Condition(_no_columns, lambda place: "data.train is a file")
COMPARED = Condition(_no_comparison, lambda place: "compare, target, select, map or show is set")
SHOW = needs("show", lambda number: number is not None, "is set", "set show=3, or export=FILE for the episodes of metatrain train")
DATA = needs("data", lambda data: data is not None, "is set", "give data=FILE")
LABELLED = needs("labelled", lambda labelled: labelled is not None, "is set", "give labelled=FILE")
ONE_LABEL = Condition(_one_label, lambda place: "data.kind is label")
NAMED = Condition(_named, lambda place: "")
SEVERAL_LABELS = needs("data.kind", lambda kind: kind == "labels", "is labels", "set data.kind=labels")
NUMBER = needs("data.kind", lambda kind: kind == "number", "is number", "set data.kind=number")
LABELS = needs("data.kind", lambda kind: kind != "number", "is label or labels", "leave data.kind out")
ONE_COLUMN = Condition(_several_columns, lambda place: "data.label_columns is empty")
NO_TARGET = needs("data.target", lambda target: target is None, "is null", "leave data.target out")
NO_RUN = never("this command creates no run directory")


@dataclass
class TrainConfig:
    """Settings of `metatrain train`, which `metatrain resume` reads back; `plan` and `doctor` take the same."""

    name: str = "${algorithm.name}"  # name of the run; its directory is outputs/train/NAME/RUN-ID
    seed: int = 0  # random seed of the run: episodes, held-out tasks, random weights
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig, metadata=when(PROMPTED))
    tasks: TasksConfig = field(default_factory=TasksConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    report: bool = True  # analyse the meta-test (accuracy by inner steps, errors, task map) and write report.html


@dataclass
class SweepConfig(TrainConfig):
    """Settings of `metatrain sweep`, a hyperparameter search over `metatrain train`; all settings of `train` apply."""

    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass
class InnerOverrides:
    """Inner-loop settings that replace those of the checkpoint."""

    # Inner loss: support | leave_one_out; null: as in the checkpoint, and leave_one_out for a plain Hugging Face model.
    loss: str | None = field(default=None, metadata=when(INNER_STEPS))
    lr: float | None = field(default=None, metadata=when(INNER_STEPS, ENCODER_ADAPTS))  # learning rate of the encoder; null: as in the checkpoint
    head_lr: float | None = field(default=None, metadata=when(INNER_STEPS, HEAD_ADAPTS))  # learning rate of the head; null: as in the checkpoint
    steps: int | None = None  # number of inner steps; null: as in the checkpoint
    # Fit the head to the examples, with an L2 strength chosen by cross-validation; applies where only the head adapts, or with
    # inner.loss=leave_one_out. null: as in the checkpoint, and true for a plain Hugging Face model.
    fit_head: bool | None = None
    # Then train the whole encoder on the examples, for a number of updates (possibly 0) chosen by cross-validation; takes minutes instead of
    # seconds. null: as in the checkpoint.
    fit_encoder: bool | None = field(default=None, metadata=when(FIT_HEAD))


@dataclass
class FinetuneInner(InnerOverrides):
    """Inner-loop settings of `metatrain finetune`."""

    # Seconds that adaptation may take. They choose whether inner steps are made, for how many folds of cross-validation, and with 50 or more examples
    # per class whether the whole encoder is trained; the choice depends on the speed of the machine, and is printed. null: no limit.
    budget: float | None = field(default=None, metadata=when(FIT_HEAD))

    def of_checkpoint(self) -> InnerOverrides:
        """Return those that replace settings of the checkpoint."""
        return InnerOverrides(**{each.name: getattr(self, each.name) for each in fields(InnerOverrides)})


@dataclass
class ModelOverrides:
    """Settings of a plain Hugging Face model; a run or a sentence-transformers pipeline has its own."""

    # mean | first (BERT: through its pooler) | cls (first, without the pooler) | last; null: the model's own, else mean.
    pooling: str | None = field(default=None, metadata=when(ENCODES, POOLS))
    # Scale encodings to length 1; null: as in the model's sentence-transformers pipeline, else false.
    normalize: bool | None = field(default=None, metadata=when(ENCODES, POOLS))
    # Text put before every text, as the model was trained with, such as "query: " for E5; null: the model's own, else none.
    prefix: str | None = field(default=None, metadata=when(ENCODES, POOLS))
    max_length: int | None = None  # truncate texts to this number of tokens; null: the model's own, else 128
    # Texts of more than model.max_length tokens: cut | windows (overlapping windows, whose encodings are averaged; needs an encoder that stays as it
    # is, algorithm=recommended or algorithm.adapt=head); null: cut.
    long_texts: str | None = field(default=None, metadata=when(ENCODES, POOLS))
    revision: str | None = field(default=None, metadata=when(OF_HUB))  # branch, tag or commit of a hub model; null: its default branch


@dataclass
class PromptOverrides:
    """Settings of prompts that replace those of a checkpoint; null: as in the checkpoint, and prompt=plain for a plain model."""

    chat: bool | None = field(default=None, metadata=when(GENERATES))  # turns of the model's own chat template
    instruction: str | None = field(default=None, metadata=when(GENERATES))  # text before the first example or query, with {labels} for the label names
    text: str | None = None  # wording of a text, with {text}; may have {labels}; with algorithm.head=mlm, has {mask}
    pair: str | None = field(default=None, metadata=when(GENERATES))  # what stands between the two texts of a pair
    label: str | None = field(default=None, metadata=when(GENERATES))  # wording of a label or target, with {label}
    separator: str | None = field(default=None, metadata=when(GENERATES))  # what stands between a text and its label
    end: str | None = field(default=None, metadata=when(GENERATES))  # what stands after a label, before the next example
    words: dict[str, str] | None = None  # words for labels, {LABEL: WORDS}
    scoring: str | None = field(default=None, metadata=when(GENERATES))  # score of a label: sum | mean | pmi | calibrated | channel


@dataclass
class AlgorithmOverrides:
    """Adaptation of a checkpoint: the method of a plain Hugging Face model, or single settings that replace those of the checkpoint."""

    # Method of a plain Hugging Face model, from `metatrain ls algorithms`; algorithm=NAME is short for algorithm.name=NAME. null: for a run, its
    # own method; for a plain model, `leave_one_out` and then inner.fit_head=true; `recommended` keeps its encoder as it is.
    name: str | None = None
    # How the head is initialised: zero | prototype | cosine (with model.normalize) | ...; null: as in the method.
    head: str | None = field(default=None, metadata=when(ONE_LABEL))
    # Add the label name of each class to its support texts; null: as in the method.
    label_names: bool | None = field(default=None, metadata=when(ENCODINGS, NAMED))
    # Which parameters adapt: all | head | body | last_layers | layer_norm | pattern; null: as in the method.
    adapt: str | None = field(default=None, metadata=when(ONE_LABEL, ADAPTS))
    # Number of encoder layers that adapt, counted from the last, all if there are fewer; null: as in the method.
    last_layers: int | None = field(default=None, metadata=when(ONE_LABEL, ADAPT))
    # Regular expression searched for in parameter names; null: as in the method.
    pattern: str | None = field(default=None, metadata=when(ONE_LABEL, ADAPT))


@dataclass
class EpisodeOverrides:
    """Episodes of the evaluation, as far as they differ from those of the checkpoint."""

    # Classes of the support set: balanced | natural (distributed as in the data, at least one example per class); null: as in the checkpoint.
    support_distribution: str | None = field(default=None, metadata=when(SAMPLED))
    # Classes of the query set: balanced | natural (distributed as in the data); null: as in the checkpoint.
    query_distribution: str | None = field(default=None, metadata=when(SAMPLED))
    # Episode file (JSON lines) to run on, as metatrain tasks export=FILE writes it; null: episodes are sampled.
    file: str | None = None


@dataclass(frozen=True)
class Overrides:
    """Settings that a command applies on top of a checkpoint."""

    algorithm: AlgorithmOverrides = field(default_factory=AlgorithmOverrides)
    inner: InnerOverrides = field(default_factory=InnerOverrides)
    model: ModelOverrides = field(default_factory=ModelOverrides)
    prompt: PromptOverrides = field(default_factory=PromptOverrides)


@dataclass
class EvaluateConfig:
    """Settings of `metatrain evaluate`: compare a checkpoint with baselines on meta-test episodes."""

    name: str = "evaluation"  # name of the run; its directory is outputs/evaluate/NAME/RUN-ID
    seed: int = 0  # random seed of the run: episodes, held-out tasks, random weights
    checkpoint: str = MISSING  # checkpoint to start from: a run directory | latest | a directory or hub id of a Hugging Face model
    tasks: TasksConfig | None = field(default=None, metadata=when(SAMPLED))  # task distribution to test on; null: the tasks of the run
    episode: EpisodeOverrides = field(default_factory=EpisodeOverrides)
    algorithm: AlgorithmOverrides = field(default_factory=AlgorithmOverrides)
    inner: InnerOverrides = field(default_factory=InnerOverrides)
    model: ModelOverrides = field(default_factory=ModelOverrides)
    prompt: PromptOverrides = field(default_factory=PromptOverrides, metadata=when(PROMPTED))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    report: bool = True  # analyse the meta-test (accuracy by inner steps, errors, task map) and write report.html


@dataclass
class DataConfig:
    """The labelled data of the new task."""

    # Training examples: a csv, tsv, jsonl, parquet or xlsx file, or a folder of images (LABEL/FILE) or of text files (LABEL/FILE.txt).
    train: str = MISSING
    test: str | None = None  # held-out examples to score the model on, in the same format; null: no test
    # Texts without labels, from which the fitted head learns too: a csv, tsv, jsonl, parquet or xlsx file with the same columns of texts, a folder
    # of text files or images, as of `metatrain predict data=`. They are not used where that does not help. null: none.
    unlabelled: str | None = field(default=None, metadata=when(NO_TARGET, ONE_LABEL))
    # Column with the text; if the file has no column `text`, it is found by names and values, and printed.
    text: str = field(default="text", metadata=when(COLUMNS))
    pair: str | None = field(default=None, metadata=when(COLUMNS))  # column with the second text of a text pair; null: single texts
    # Column with the label; if the file has no column `label`, it is found by names and values, and printed (not with data.kind=labels).
    label: str = field(default="label", metadata=when(COLUMNS, NO_TARGET, ONE_COLUMN))
    # What an example has: label (one label) | labels (several, or none) | number (a number, such as stars, or an ordered label). The last two
    # fit heads to the frozen encoder.
    kind: str = field(default="label", metadata=when(NO_TARGET))
    # Characters between the labels of a text, ';' for example, in the column of data.label; null: the column has lists, of jsonl or parquet, or
    # written as a JSON list (["a", "b"]).
    label_separator: str | None = field(default=None, metadata=when(SEVERAL_LABELS, ONE_COLUMN))
    label_columns: list[str] = field(default_factory=list, metadata=when(SEVERAL_LABELS))  # a column for each label, with 1 or 0; []: data.label
    # Ordered labels, the lowest first, [poor, fair, good]; they become the numbers 1, 2, 3. []: the labels are numbers.
    order: list[str] = field(default_factory=list, metadata=when(NUMBER))
    # Label descriptions that replace labels of the files, {LOC: location}, {1: bad, 2: bad, 5: good}; labels with the same description are merged. The
    # model predicts them, and methods that read label names read them. metatrain score replaces the same labels.
    label_descriptions: dict[Any, str] = field(default_factory=dict, metadata=when(NO_TARGET, ONE_LABEL))
    # One-sentence definitions of labels, {refund: The customer wants money back.}, for methods that read label names. The labels are those after
    # label_descriptions.
    label_definitions: dict[Any, str] = field(default_factory=dict, metadata=when(NO_TARGET, LABELS))
    # Text of a label for these methods: name | definition | name_and_definition ("name: definition").
    label_text: str = field(default="name_and_definition", metadata=when(needs("data.label_definitions", bool, "is set", "define labels")))
    # Class shares among the texts to predict, {refund: 0.1, other: 0.9}, where they differ from those of the examples: observed (as in the examples) |
    # uniform | a share for each label. The bias of the fitted head is corrected by Bayes' rule; null: no correction.
    priors: Any = field(default=None, metadata=when(NO_TARGET, ONE_LABEL))
    # Weights of the classes in the fit of the head (and of the encoder, inner.fit_encoder): balanced (each class counts the same) | a weight for each
    # label; null: each example counts the same. Inner steps before the fit do not read them.
    class_weights: Any = field(default=None, metadata=when(NO_TARGET, ONE_LABEL))
    # Text-to-text: column with the target text, instead of `label`; null: classification.
    target: str | None = field(default=None, metadata=when(COLUMNS))
    # Score of a text-to-text task: chrf | bleu | rouge1 | rouge2 | rougeL | exact_match.
    score: str = field(default="chrf", metadata=when(needs("data.target", bool, "is set"), needs("data.test", bool, "is set", "give data.test=FILE")))


@dataclass
class FinetuneConfig:
    """Settings of `metatrain finetune`: adapt a checkpoint to a new task and write a model directory."""

    name: str = "task"  # name of the run; its directory is outputs/finetune/NAME/RUN-ID
    seed: int = 0  # random seed of the run: episodes, held-out tasks, random weights
    # Checkpoint to start from: a run directory | latest | a directory or hub id of a Hugging Face model | a list of these, [everyday,minilm]: each
    # adapts to the examples, and with 20 or more held-out examples cross-validation chooses one. The default, everyday, is in the package.
    checkpoint: Any = "everyday"
    data: DataConfig = field(default_factory=DataConfig)
    # Out-of-scope (OOS) detection: predict none_of_these for texts that fit no class. The value is the fraction of in-scope texts that may be
    # rejected, typically 0.05; test rows whose label is not in the training examples count as out of scope. null: always predict a class.
    oos_false_rejection_rate: float | None = field(default=None, metadata=when(ONE_LABEL))
    algorithm: AlgorithmOverrides = field(default_factory=AlgorithmOverrides)
    inner: FinetuneInner = field(default_factory=FinetuneInner, metadata=when(ONE_LABEL))
    model: ModelOverrides = field(default_factory=ModelOverrides)
    prompt: PromptOverrides = field(default_factory=PromptOverrides, metadata=when(PROMPTED))
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(mode="none"))
    # What model/ holds of a language model of which only LoRA matrices adapt: adapter (these matrices, as an adapter of peft that is added to the base
    # model) | merged (the whole model, which transformers loads). null: adapter.
    export: str | None = field(default=None, metadata=when(ONE_LABEL))
    report: bool = True  # write report.html


@dataclass
class FinetunedModelConfig:
    """The finetuned model to use."""

    path: str = MISSING  # finetuned model: the run directory of `metatrain finetune`, or its model/ | latest


@dataclass
class PredictConfig:
    """Settings of `metatrain predict`: predict labels for a text or a file of texts."""

    name: str = field(default="predictions", metadata=when(NO_RUN))  # unused: predict creates no run directory
    model: FinetunedModelConfig = field(default_factory=FinetunedModelConfig)  # model=DIR is short for model.path=DIR
    text: str | None = None  # one text to label; either this or `data`
    # File to label: csv, tsv, jsonl, parquet, xlsx, an image, or a folder of images or text files (.txt); -: standard input, one text per line.
    data: str | None = None
    # Column of `data` with the text; null: as in finetune, else found by names and values.
    column: str | None = field(default=None, metadata=when(DATA))
    # Column of `data` with the second text, for a model of text pairs; null: as in finetune.
    pair: str | None = field(default=None, metadata=when(DATA))
    # File for the predictions of `data`, with the columns of the input: .csv, .tsv, .xlsx (extra xlsx) or .parquet, other names are JSON lines;
    # null: JSON lines on standard output.
    output: str | None = None
    top: int | None = None  # number of labels per row, the most probable first (label, label_2, ...); null: one, and all labels for `text`
    # A text whose highest probability is below this value gets no label, and the most likely one is named in `reason`; from 0 to 1; null: every
    # text gets a label.
    threshold: float | None = None
    # Add the prediction set of each text: labels among which its own is with this probability, 0.9 for example; needs a model that was finetuned on
    # 20 or more examples, or on fewer from a checkpoint whose sets are calibrated on other tasks (everyday). null: no sets.
    coverage: float | None = None
    # What computes the predictions: torch | onnx (the graph of `metatrain export`, without torch, on the CPU) | onnx_int8 (its graph of
    # quantize=int8) | auto (onnx if the model has a graph and hardware.device and hardware.precision allow it, else torch).
    runtime: str = "auto"
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


@dataclass
class ScoreConfig:
    """Settings of `metatrain score`: accuracy, calibration and errors of a finetuned model on labelled data."""

    name: str = "scores"  # name of the run; its directory is outputs/score/NAME/RUN-ID
    model: FinetunedModelConfig = field(default_factory=FinetunedModelConfig)  # model=DIR is short for model.path=DIR
    # Labelled examples that the model was not trained on: csv, tsv, jsonl, parquet, xlsx, or a folder of images (LABEL/FILE) or text files
    # (LABEL/FILE.txt).
    data: str = MISSING
    column: str | None = None  # column of `data` with the text; null: as in finetune, else found by names and values
    pair: str | None = None  # column of `data` with the second text, for a model of text pairs; null: as in finetune
    label: str = "label"  # column of `data` with the label; if there is no column `label`, it is found by names and values
    # Score prediction sets too (metatrain predict coverage=0.9): the share of rows whose set contains their label, and the size of the sets; null: no.
    coverage: float | None = None
    report: bool = True  # write report.html
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


@dataclass
class ExportConfig:
    """Settings of `metatrain export`: write a finetuned classifier in a format that runs without torch."""

    name: str = field(default="export", metadata=when(NO_RUN))  # unused: export creates no run directory
    model: FinetunedModelConfig = field(default_factory=FinetunedModelConfig)  # model=DIR is short for model.path=DIR
    format: str = "onnx"  # format of the file: onnx (the extra `onnx`)
    quantize: str | None = None  # int8: weights of 8 bits, a quarter of the size, whose probabilities differ; null: float32


@dataclass
class ServeConfig:
    """Settings of `metatrain serve`: many few-shot tasks on one model, over HTTP."""

    name: str = field(default="serve", metadata=when(NO_RUN))  # unused: serve creates no run directory
    checkpoint: str = "everyday"  # model that all tasks share: a run directory | latest | a directory or hub id of a Hugging Face model
    # What adapts to a task: head (a few kilobytes per task; texts of all tasks are encoded together); null: as in the checkpoint, which may be
    # megabytes per task.
    adapt: str | None = "head"
    folder: str = "served_tasks"  # directory of the tasks, one file each; created if it does not exist
    host: str = "127.0.0.1"  # address to listen on; one that other machines reach needs a token, in the environment variable METATRAIN_TOKEN
    port: int = 8000  # port to listen on; 0: any free one
    max_tasks: int = 10_000  # maximum number of tasks
    max_texts: int = 1000  # maximum number of texts of a request
    max_examples: int = 1000  # maximum number of examples of a task
    max_body_mb: float = 4.0  # maximum size of a request's body in MB
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


@dataclass
class CheckConfig:
    """Settings of `metatrain check`: labels that look wrong in labelled data."""

    name: str = field(default="check", metadata=when(NO_RUN))  # unused: check creates no run directory
    seed: int = 0  # random seed of the folds of cross-validation
    # Labelled examples: csv, tsv, jsonl, parquet or xlsx file, or a folder of text files (LABEL/FILE.txt).
    data: str = MISSING
    # Encoder of the texts: a run directory | latest | a directory or hub id of a Hugging Face model; model=DIR is short for checkpoint=DIR.
    checkpoint: str = "minilm"
    # Column of `data` with the text; if the file has no column `text`, it is found by names and values, and printed.
    column: str = field(default="text", metadata=when(TABLE))
    pair: str | None = field(default=None, metadata=when(TABLE))  # column of `data` with the second text of a text pair; null: single texts
    # Column of `data` with the label; if the file has no column `label`, it is found by names and values, and printed.
    label: str = field(default="label", metadata=when(TABLE))
    # File for the checked rows: .csv, .tsv, .xlsx (extra xlsx) or .parquet, other names are JSON lines. null: checked.csv, which must not exist yet.
    output: str | None = None
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


@dataclass
class OptionalModelConfig:
    """A finetuned model to use, if any."""

    path: str | None = None  # finetuned model: the run directory of `metatrain finetune`, or its model/ | latest; null: none


@dataclass
class SuggestConfig:
    """Settings of `metatrain suggest`: which texts to label next."""

    name: str = field(default="suggest", metadata=when(NO_RUN))  # unused: suggest creates no run directory
    seed: int = 0  # random seed of the choice
    data: str = MISSING  # texts without labels: csv, tsv, jsonl, parquet or xlsx file, or a folder of text files (.txt)
    model: OptionalModelConfig = field(default_factory=OptionalModelConfig)  # model=DIR is short for model.path=DIR; either this or `labelled`
    labelled: str | None = None  # the examples labelled so far, to which a head is fitted, in the format of `data`; either this or `model`
    # Encoder for `labelled`: a run directory | latest | a directory or hub id of a Hugging Face model; a finetuned model has its own.
    checkpoint: str = field(default="minilm", metadata=when(LABELLED))
    n: int = 10  # number of texts to label next, chosen together so that they differ
    column: str | None = None  # column with the text; null: that of the finetuned model, else found by names and values
    pair: str | None = None  # column with the second text of a text pair; null: that of the finetuned model, else single texts
    label: str = field(default="label", metadata=when(LABELLED))  # column of `labelled` with the label; found as by `metatrain finetune`
    # File for the ranked rows: .csv, .tsv, .xlsx (extra xlsx) or .parquet, other names are JSON lines. null: suggested.csv, which must not exist yet.
    output: str | None = None
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


@dataclass
class PushConfig:
    """Settings of `metatrain push`: upload a model directory to the Hugging Face hub."""

    name: str = field(default="push", metadata=when(NO_RUN))  # unused: push creates no run directory
    model: FinetunedModelConfig = field(default_factory=FinetunedModelConfig)  # model=DIR is short for model.path=DIR
    repo: str = MISSING  # repository on the hub, ORG/NAME; created if it does not exist
    public: bool = False  # create a new repository as public; false: private
    message: str = "A model of metatrain"  # commit message


@dataclass
class TasksCommandConfig:
    """Settings of `metatrain tasks`: show a task distribution, compare its tasks, and suggest which to train on."""

    name: str = field(default="tasks", metadata=when(NO_RUN))  # unused: tasks creates no run directory
    seed: int = 0  # random seed of the run: episodes, held-out tasks, random weights
    tasks: TasksConfig = field(default_factory=TasksConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig, metadata=when(SHOW))
    # How to measure task similarity: embedding (mean encoding of the texts) | task2vec (Fisher information of the encoder's parameters); null:
    # embedding, if target, select or map is given.
    compare: str | None = None
    target: str | None = None  # rank training tasks by similarity to this one: a task of the distribution, or a labelled file; null: no ranking
    select: int | None = None  # number of training tasks to suggest; null: no suggestion
    # Weight of similarity to the target against diversity in the selection, from 0 to 1.
    similarity_weight: float = field(default=0.5, metadata=when(needs("target", bool, "is set"), needs("select", bool, "is set")))
    map: str | None = None  # draw a map of the tasks to this file (.png, .svg, .pdf); null: no map
    # Episode file (.jsonl) to write: the episodes that metatrain train draws with the same settings; all settings of train are then accepted.
    export: str | None = None
    # Episodes to export: meta_test | meta_validation | meta_train.
    split: str = field(default="meta_test", metadata=when(needs("export", bool, "is set", "add export=FILE")))
    # Print this number of prompts of test tasks, as a language model reads them (model=smollm2, prompt=chat, episode.shots=2); null: none.
    show: int | None = None
    prompt: PromptConfig = field(default_factory=PromptConfig, metadata=when(SHOW))
    model: ModelConfig = field(default_factory=ModelConfig, metadata=when(COMPARED))  # encoder used to compare tasks; language model that reads prompts
    hardware: HardwareConfig = field(default_factory=HardwareConfig, metadata=when(COMPARED))


SCHEMAS = {
    "train": TrainConfig,
    "sweep": SweepConfig,
    "evaluate": EvaluateConfig,
    "finetune": FinetuneConfig,
    "predict": PredictConfig,
    "score": ScoreConfig,
    "check": CheckConfig,
    "suggest": SuggestConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
    "push": PushConfig,
    "tasks": TasksCommandConfig,
    "plan": TrainConfig,
    "doctor": TrainConfig,
}


@functools.cache
def register() -> None:
    """Make the schemas known to Hydra as `COMMAND_schema`, the first entry of each conf/COMMAND.yaml, and the prompts of plug-ins."""
    plugin_prompts.register()
    store = ConfigStore.instance()
    for command, schema in SCHEMAS.items():
        store.store(name=f"{command}_schema", node=schema)
