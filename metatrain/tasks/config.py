"""Settings of tasks and episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from metatrain.conditions import TRAINING, Condition, Place, Unread, needs, when

SHARE = needs(".share", bool, "is above 0", "set it above 0")
SAMPLED_BY_LOSS = needs(".by", lambda by: by != "fixed", "is not fixed", "choose curriculum, hardness or bandit")
COLUMNS = needs(".images", lambda images: not images, "is false", "give a file with columns")
LABELS = needs(".target", lambda target: target is None, "is null", "set tasks.target=null")
TARGETS = needs(".target", lambda target: target is not None, "is set")
ONE_COLUMN = needs(".label_columns", lambda columns: not columns, "is empty", "leave label_columns out")
NAMED_TASKS = needs(".task", lambda task: task is not None, "names a column", "name the column of tasks")
SAMPLE_BY = ("tasks", "sources")
DEFINED = needs("tasks.label_text", lambda text: text != "name", "is not name", "choose definition or name_and_definition")
HUB = needs(".path", lambda path: str(path).startswith("hub:"), "is hub:ORG/NAME", "give a data set of the hub")


def _split_is_given(place: Place) -> Unread | None:
    given = next((key for key in (".meta_validation.tasks", ".meta_test.tasks") if place.value(key)), None)
    if given is None and place.value(".fold") is None:
        return None
    because = f"{place.full(given)} names the tasks" if given else f"{place.given('.fold')} chooses the held-out tasks"
    return Unread(because, f"set {place.full(given or '.fold')}={'[]' if given else 'null'}")


def _no_classes(place: Place) -> Unread | None:
    sources = (place.value("tasks"), *place.value("tasks.sources").values())
    if any(source["target"] is None for source in sources):
        return None
    return Unread("text-to-text tasks (tasks.target) have no classes", "set tasks.label instead of tasks.target")


SAMPLED = needs("episode.file", lambda file: file is None, "is null", "set episode.file=null")
CLASSES = Condition(_no_classes, lambda place: "tasks have classes (not tasks.target)")


@dataclass
class SplitConfig:
    """Tasks of one split (config nodes `tasks.meta_train`, `tasks.meta_validation`, `tasks.meta_test`)."""

    files: list[str] = field(default_factory=list)  # names or shell patterns of files below tasks.path (hub data sets: splits); []: all
    tasks: list[str] = field(default_factory=list)  # names or shell patterns of tasks; an exact name takes precedence over a pattern
    only: dict[str, list[str]] = field(default_factory=dict)  # from files that match the key, take only the tasks listed
    labels: list[str] = field(default_factory=list)  # names or shell patterns of labels; rows with other labels are dropped; []: all
    labels_from: str | None = None  # read the list of labels from a JSON file below tasks.path: FILE, or FILE:KEY.KEY for a list inside it
    support_files: list[str] = field(default_factory=list)  # draw support examples from these files and queries from `files`; []: both from `files`


@dataclass
class MaskedWordsConfig:
    """Self-supervised tasks, masked-word classification (SMLMT): which word was masked? (config node `tasks.masked_words`)"""

    share: float = 0.0  # fraction of training episodes that are of this kind, from 0 (none) to 1 (all)
    path: str | None = field(
        default=None, metadata=when(SHARE)
    )  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    way: int = field(default=4, metadata=when(SHARE))  # classes (words) per episode if episode.way is null
    max_words: int = field(default=1000, metadata=when(SHARE))  # maximum number of words that become classes
    min_sentences: int = field(default=20, metadata=when(SHARE))  # minimum number of sentences per word
    max_sentences: int = field(default=200, metadata=when(SHARE))  # maximum number of sentences per word
    max_texts: int = field(default=200_000, metadata=when(SHARE))  # maximum number of texts to read, sampled at random from a longer file
    # Skip words that occur in more than this fraction of the sentences, above 0 and at most 1.
    max_share: float = field(default=0.05, metadata=when(SHARE))


@dataclass
class ClustersConfig:
    """Self-supervised tasks, cluster classification (CACTUs): which cluster is this text from? (config node `tasks.clusters`)"""

    share: float = 0.0  # fraction of training episodes that are of this kind, from 0 (none) to 1 (all)
    path: str | None = field(
        default=None, metadata=when(SHARE)
    )  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    way: int = field(default=4, metadata=when(SHARE))  # classes (clusters) per episode if episode.way is null
    max_texts: int = field(default=200_000, metadata=when(SHARE))  # maximum number of texts to read, sampled at random from a longer file
    clusters: int = field(default=50, metadata=when(SHARE))  # number of clusters per task
    partitions: int = field(default=4, metadata=when(SHARE))  # number of tasks, each with its own clustering


@dataclass
class PairsConfig:
    """Self-supervised tasks on sentence pairs (config nodes `tasks.sentence_order` and `tasks.same_text`)."""

    share: float = 0.0  # fraction of training episodes that are of this kind, from 0 (none) to 1 (all)
    path: str | None = field(
        default=None, metadata=when(SHARE)
    )  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    max_texts: int = field(default=200_000, metadata=when(SHARE))  # maximum number of texts to read, sampled at random from a longer file
    max_pairs: int = field(default=5000, metadata=when(SHARE))  # maximum number of sentence pairs


@dataclass
class SelfSupervisedConfig:
    """Further self-supervised tasks, by name (config node `tasks.self_supervised`)."""

    share: float = 0.0  # fraction of training episodes that are of this kind, from 0 (none) to 1 (all)
    path: str | None = field(
        default=None, metadata=when(SHARE)
    )  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    max_texts: int = field(default=200_000, metadata=when(SHARE))  # maximum number of texts to read, sampled at random from a longer file
    options: dict[str, Any] = field(default_factory=dict, metadata=when(SHARE))  # settings of its own


@dataclass
class SamplingConfig:
    """Sampling weights of training tasks as a function of their query losses (config node `tasks.sampling`)."""

    # fixed | curriculum (from easy to hard tasks) | hardness (favours hard tasks) | bandit (favours tasks whose loss decreases) | the name of a
    # plug-in.
    by: str = "fixed"
    # Strength s: with hardness, a task with a loss one standard deviation above the mean is e^s times as likely; 0 to 10.
    strength: float = field(default=1.0, metadata=when(SAMPLED_BY_LOSS))
    exploration: float = field(default=0.2, metadata=when(SAMPLED_BY_LOSS))  # fraction of episodes sampled with the fixed weights, from 0 to 1
    decay: float = field(default=0.8, metadata=when(SAMPLED_BY_LOSS))  # decay of the exponential moving average of a task's loss, from 0 to below 1


@dataclass
class SourceConfig:
    """Source of rows and the meaning of its columns."""

    # a file | a folder | hub:ORG/NAME | metatrain:reviews | metatrain:everyday (packaged corpora) | empty, of tasks.path: only tasks.sources.
    path: str = MISSING
    text: str = field(default="text", metadata=when(COLUMNS))  # column with the text
    images: bool = False  # `path` is a folder of images, TASK/LABEL/FILE or LABEL/FILE; the settings of columns do not apply
    # Column with the second text of a text pair (a hypothesis, for example); null: single texts.
    pair: str | None = field(default=None, metadata=when(COLUMNS))
    # Column with the label, or with a list of labels (multi-label tasks).
    label: str = field(default="label", metadata=when(COLUMNS, LABELS, ONE_COLUMN))
    # Characters between the labels of a text, ';' for example, for multi-label tasks; null: the column has one label, or a list of labels.
    label_separator: str | None = field(default=None, metadata=when(COLUMNS, LABELS, ONE_COLUMN))
    # A column for each label, with 1 or 0, for multi-label tasks of files and of the Hub: [food,service,place]; []: the column `label`.
    label_columns: list[str] = field(default_factory=list, metadata=when(COLUMNS, LABELS))
    # Label descriptions, for methods that read label names: {LOC: location}, {1: bad, 2: bad, 5: good}; labels with the same description are
    # merged.
    label_descriptions: dict[Any, str] = field(default_factory=dict, metadata=when(LABELS))
    # One-sentence definitions of labels, {refund: The customer wants money back.}, for methods that read label names (tasks.label_text). The labels
    # are those after label_descriptions.
    label_definitions: dict[Any, str] = field(default_factory=dict, metadata=when(LABELS, DEFINED))
    # Text-to-text tasks: column with the target text, instead of `label`; null: classification.
    target: str | None = field(default=None, metadata=when(COLUMNS))
    # What to do with rows of a file that cannot be read: refuse (stop with an error) | skip (and report the number).
    bad_rows: str = field(default="refuse", metadata=when(COLUMNS))
    # Score of text-to-text tasks: chrf | bleu | rouge1 | rouge2 | rougeL | exact_match.
    score: str = field(default="chrf", metadata=when(TARGETS))
    task: str | None = field(default=None, metadata=when(COLUMNS))  # column with the name of the task; null: each file is one task
    only_tasks: list[str] = field(default_factory=list)  # names or shell patterns of the tasks to read; rows of others are dropped; []: all
    hub_config: str | None = field(default=None, metadata=when(HUB))  # configuration (subset) of a hub data set; null: its default
    hub_revision: str | None = field(default=None, metadata=when(HUB))  # branch, tag or commit of a hub data set; null: its default branch
    in_fold: int | None = None  # number of the fold that the source belongs to (tasks.fold); null: none
    licence: str | None = None  # licence of the data, for model cards; null: unknown
    origin: str | None = None  # where the data comes from, for model cards: an address, a repository or a hub id; null: unknown


@dataclass
class NamedSourceConfig(SourceConfig):
    """Further source of rows, under a name (config node `tasks.sources.NAME`)."""

    prefix_tasks: bool = field(default=False, metadata=when(NAMED_TASKS))  # name tasks NAME/TASK instead of TASK


@dataclass
class TasksConfig(SourceConfig):
    """The task distribution (config group `tasks`)."""

    name: str = "reviews"  # name of the distribution, shown in the log
    variant: str | None = None  # name of one of several published splits, for other settings to refer to as ${tasks.variant}; null: none
    # Further sources, by name: {NAME: {path: ..., label: ...}}. In patterns, their files are called NAME/FILE; a file that is one task is
    # called NAME.
    sources: dict[str, NamedSourceConfig] = field(default_factory=dict)
    meta_train: SplitConfig = field(default_factory=lambda: SplitConfig(tasks=["*"]))
    meta_validation: SplitConfig = field(default_factory=SplitConfig)
    meta_test: SplitConfig = field(default_factory=SplitConfig)
    # Fold to hold out for the meta-test. If sources belong to folds (in_fold): the sources of fold K are meta-test, those of all other folds
    # meta-train, and meta-validation is as stated above; null: the sources of all folds are meta-train, and there is no meta-test. Otherwise,
    # leave one file out: file K is meta-test (counted from 0, in alphabetical order), the next one (after the last, the first) is
    # meta-validation, and all others are meta-train; null: the splits as stated above.
    fold: int | None = None
    # Maximum number of rows per task and split, for support sets and for queries; of a larger task, the same random rows are taken in every run,
    # from the largest classes first. null: all rows.
    max_rows: int | None = None
    # Text of a label for methods that read label names: name | definition | name_and_definition ("name: definition"). A label without a
    # definition (label_definitions) is read by its name.
    label_text: str = field(default="name", metadata=when(LABELS))
    # Fraction of tasks held out for each of meta-validation and meta-test, if neither names any.
    holdout: float = field(default=0.2, metadata=when(TRAINING, Condition(_split_is_given, lambda place: "no split names its tasks")))
    # Texts shared by meta-training and meta-test tasks: refuse | drop | drop_queries | keep. refuse stops with an error, drop removes them from
    # training, drop_queries removes only those that can be test queries (training sees the test classes, and only their support examples), keep
    # leaks test data and is for debugging.
    overlap: str = "refuse"
    # Sample a training task of n texts in proportion to n to this power; 0: uniformly.
    size_power: float = field(default=0.0, metadata=when(TRAINING))
    # What is sampled equally often: tasks | sources (tasks.sources; then a task of the source, in proportion to its size as tasks.size_power
    # says), so that a source of many tasks is not sampled more often than others.
    sample_by: str = field(default="tasks", metadata=when(TRAINING))
    sampling: SamplingConfig = field(default_factory=SamplingConfig, metadata=when(TRAINING))
    masked_words: MaskedWordsConfig = field(default_factory=MaskedWordsConfig, metadata=when(TRAINING))
    clusters: ClustersConfig = field(default_factory=ClustersConfig, metadata=when(TRAINING))
    # Self-supervised tasks: are two sentences in their original order?
    sentence_order: PairsConfig = field(default_factory=PairsConfig, metadata=when(TRAINING))
    # Self-supervised tasks: are two sentences from the same text?
    same_text: PairsConfig = field(default_factory=PairsConfig, metadata=when(TRAINING))
    # Self-supervised tasks of plug-ins, by name: {NAME: {share: 0.2}}; metatrain ls plugins lists them.
    self_supervised: dict[str, SelfSupervisedConfig] = field(default_factory=dict, metadata=when(TRAINING))

    @property
    def trains_on_all_folds(self) -> bool:
        """True if sources belong to folds and none is held out, so that there are no meta-test tasks."""
        return self.fold is None and any(source.in_fold is not None for source in (self, *self.sources.values()))


@dataclass
class EpisodeConfig:
    """Sampling of episodes (config group `episode`)."""

    # Number of classes per episode: a number; a range such as 2..10, drawn per episode (at most the classes of the task); ..6 for at most 6
    # (tasks with fewer classes are used whole); null: all classes of the task.
    way: int | str | None = field(default=None, metadata=when(CLASSES))
    # Support examples per class: a number; a range such as 1..16, drawn per episode; ..16 for at most 16. Ranges leave one query in each class.
    shots: int | str = 5
    queries: int | None = 5  # query examples per class, fewer if a class has fewer; null: every row that is not in the support set
    # Shuffle the class order in each episode, so that labels have to be learned from the support set.
    permute_labels: bool = field(default=True, metadata=when(CLASSES))
    # Fraction of training episodes whose classes are drawn from all training tasks together, from 0 to 1; reduces overfitting to the tasks.
    cross_task_fraction: float = field(default=0.0, metadata=when(CLASSES))
    # Classes of the support set: balanced (the same number of shots) | natural (as many examples in total, distributed as in the data, at least one
    # per class).
    support_distribution: str = field(default="balanced", metadata=when(CLASSES))
    # Classes of the query set: balanced (the same number of queries) | natural (as many in total, distributed as in the data).
    query_distribution: str = field(default="balanced", metadata=when(CLASSES))
    # Episode file (JSON lines) that the meta-test runs on, as metatrain tasks export=FILE writes it; null: episodes are sampled.
    file: str | None = None
