"""Settings of tasks and episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


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
    path: str | None = None  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    way: int = 4  # classes (words) per episode if episode.way is null
    max_words: int = 1000  # maximum number of words that become classes
    min_sentences: int = 20  # minimum number of sentences per word
    max_sentences: int = 200  # maximum number of sentences per word
    max_texts: int = 200_000  # maximum number of texts to read, sampled at random from a longer file
    max_share: float = 0.05  # skip words that occur in more than this fraction of the sentences, above 0 and at most 1


@dataclass
class ClustersConfig:
    """Self-supervised tasks, cluster classification (CACTUs): which cluster is this text from? (config node `tasks.clusters`)"""

    share: float = 0.0  # fraction of training episodes that are of this kind, from 0 (none) to 1 (all)
    path: str | None = None  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    way: int = 4  # classes (clusters) per episode if episode.way is null
    max_texts: int = 200_000  # maximum number of texts to read, sampled at random from a longer file
    clusters: int = 50  # number of clusters per task
    partitions: int = 4  # number of tasks, each with its own clustering


@dataclass
class PairsConfig:
    """Self-supervised tasks on sentence pairs (config nodes `tasks.sentence_order` and `tasks.same_text`)."""

    share: float = 0.0  # fraction of training episodes that are of this kind, from 0 (none) to 1 (all)
    path: str | None = None  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    max_texts: int = 200_000  # maximum number of texts to read, sampled at random from a longer file
    max_pairs: int = 5000  # maximum number of sentence pairs


@dataclass
class SelfSupervisedConfig:
    """Further self-supervised tasks, by name (config node `tasks.self_supervised`)."""

    share: float = 0.0  # fraction of training episodes that are of this kind, from 0 (none) to 1 (all)
    path: str | None = None  # text file with one text per line, or a labelled file; null: the texts of the meta-training tasks
    max_texts: int = 200_000  # maximum number of texts to read, sampled at random from a longer file
    options: dict[str, Any] = field(default_factory=dict)  # settings of its own


@dataclass
class SamplingConfig:
    """Sampling weights of training tasks as a function of their query losses (config node `tasks.sampling`)."""

    # fixed | curriculum (from easy to hard tasks) | hardness (favours hard tasks) | bandit (favours tasks whose loss decreases).
    by: str = "fixed"
    strength: float = 1.0  # strength s: with hardness, a task with a loss one standard deviation above the mean is e^s times as likely; 0 to 10
    exploration: float = 0.2  # fraction of episodes sampled with the fixed weights, from 0 to 1
    decay: float = 0.8  # decay of the exponential moving average of a task's loss, from 0 to below 1


@dataclass
class SourceConfig:
    """Source of rows and the meaning of its columns."""

    path: str = MISSING  # a file | a folder | hub:ORG/NAME | metatrain:reviews | metatrain:everyday (packaged corpora)
    text: str = "text"  # column with the text
    images: bool = False  # `path` is a folder of images, TASK/LABEL/FILE or LABEL/FILE; the settings of columns do not apply
    pair: str | None = None  # column with the second text of a text pair (a hypothesis, for example); null: single texts
    label: str = "label"  # column with the label
    # Label descriptions, for methods that read label names: {LOC: location}, {1: bad, 2: bad, 5: good}; labels with the same description are
    # merged.
    label_descriptions: dict[Any, str] = field(default_factory=dict)
    target: str | None = None  # text-to-text tasks: column with the target text, instead of `label`; null: classification
    bad_rows: str = "refuse"  # what to do with rows of a file that cannot be read: refuse (stop with an error) | skip (and report the number)
    score: str = "chrf"  # score of text-to-text tasks: chrf | bleu | rouge1 | rouge2 | rougeL | exact_match
    task: str | None = None  # column with the name of the task; null: each file is one task
    hub_config: str | None = None  # configuration (subset) of a hub data set; null: its default
    hub_revision: str | None = None  # branch, tag or commit of a hub data set; null: its default branch


@dataclass
class TasksConfig(SourceConfig):
    """The task distribution (config group `tasks`)."""

    name: str = "reviews"  # name of the distribution, shown in the log
    variant: str | None = None  # name of one of several published splits, for other settings to refer to as ${tasks.variant}; null: none
    # Further sources, by name: {NAME: {path: ..., label: ...}}. In patterns, their files are called NAME/FILE; a file that is one task is
    # called NAME.
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    meta_train: SplitConfig = field(default_factory=lambda: SplitConfig(tasks=["*"]))
    meta_validation: SplitConfig = field(default_factory=SplitConfig)
    meta_test: SplitConfig = field(default_factory=SplitConfig)
    # Leave one file out: with K, file K is meta-test (counted from 0, in alphabetical order), the next one (after the last, the first) is
    # meta-validation, and all others are meta-train. null: the splits as stated above.
    fold: int | None = None
    holdout: float = 0.2  # fraction of tasks held out for each of meta-validation and meta-test, if neither names any
    # Texts shared by meta-training and meta-test tasks: refuse | drop | drop_queries | keep. refuse stops with an error, drop removes them from
    # training, drop_queries removes only those that can be test queries (training sees the test classes, and only their support examples), keep
    # leaks test data and is for debugging.
    overlap: str = "refuse"
    size_power: float = 0.0  # sample a training task of n texts in proportion to n to this power; 0: uniformly
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    masked_words: MaskedWordsConfig = field(default_factory=MaskedWordsConfig)
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    sentence_order: PairsConfig = field(default_factory=PairsConfig)  # self-supervised tasks: are two sentences in their original order?
    same_text: PairsConfig = field(default_factory=PairsConfig)  # self-supervised tasks: are two sentences from the same text?
    # Self-supervised tasks of plug-ins, by name: {NAME: {share: 0.2}}; metatrain ls plugins lists them.
    self_supervised: dict[str, SelfSupervisedConfig] = field(default_factory=dict)


@dataclass
class EpisodeConfig:
    """Sampling of episodes (config group `episode`)."""

    # Number of classes per episode: a number; a range such as 2..10, drawn per episode (at most the classes of the task); ..6 for at most 6
    # (tasks with fewer classes are used whole); null: all classes of the task.
    way: int | str | None = None
    # Support examples per class: a number; a range such as 1..16, drawn per episode; ..16 for at most 16. Ranges leave one query in each class.
    shots: int | str = 5
    queries: int | None = 5  # query examples per class, fewer if a class has fewer; null: every row that is not in the support set
    permute_labels: bool = True  # shuffle the class order in each episode, so that labels have to be learned from the support set
    # Fraction of training episodes whose classes are drawn from all training tasks together, from 0 to 1; reduces overfitting to the tasks.
    cross_task_fraction: float = 0.0
