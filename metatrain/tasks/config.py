"""What a user may set about tasks and episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class SplitConfig:
    """Which tasks of which files make one split (config nodes `tasks.meta_train` and so on)."""

    files: list[str] = field(default_factory=list)  # names or patterns of files below tasks.path (hub: splits); none: all
    tasks: list[str] = field(default_factory=list)  # names or patterns of tasks; what is the name of one is no pattern
    only: dict[str, list[str]] = field(default_factory=dict)  # from files of this pattern, only these tasks
    labels: list[str] = field(default_factory=list)  # names or patterns of labels, rows of others are left out; none: all
    labels_from: str | None = None  # such a list of names from a JSON file below tasks.path: FILE, or FILE:KEY.KEY of a list in it
    support_files: list[str] = field(default_factory=list)  # support rows come from these files only, queries from `files`


@dataclass
class MaskedWordsConfig:
    """Self-supervised tasks beside the labelled ones: which word was masked? (config node `tasks.masked_words`)"""

    share: float = 0.0  # of training episodes that are of this kind; 1: all of them
    path: str | None = None  # a text file (a text a line) or a labelled one; null: the texts of the meta-train tasks
    way: int = 4  # words an episode, where episode.way is null
    words: int = 1000  # most words
    least_sentences: int = 20  # of a word
    most_sentences: int = 200  # of a word; more are not used
    most_texts: int = 200_000  # that are looked at, drawn by chance from a longer file
    most_share: float = 0.05  # of the sentences; a word that is in more of them says little about its sentence


@dataclass
class ClustersConfig:
    """Self-supervised tasks: which cluster of texts is this of? (config node `tasks.clusters`)"""

    share: float = 0.0  # of training episodes
    path: str | None = None  # as of masked_words
    way: int = 4  # clusters an episode, where episode.way is null
    most_texts: int = 200_000  # as of masked_words
    clusters: int = 50  # of a task
    partitions: int = 4  # tasks, each with clusters of its own


@dataclass
class PairsConfig:
    """Self-supervised tasks of two sentences (config nodes `tasks.sentence_order` and `tasks.same_text`)."""

    share: float = 0.0  # of training episodes
    path: str | None = None  # as of masked_words
    most_texts: int = 200_000  # as of masked_words
    rows: int = 5000  # most pairs


@dataclass
class SamplingConfig:
    """How the weights of the training tasks change with their query losses (config node `tasks.sampling`)."""

    # fixed | curriculum (from tasks that are easy for the learner to hard ones) | hardness (hard ones) | bandit (those on which it makes progress)
    by: str = "fixed"
    strength: float = 1.0  # a task whose loss is one standard deviation above the mean is drawn e to this power times as often
    exploration: float = 0.2  # share of the draws that the fixed weights keep
    memory: float = 0.8  # of the running mean of a task's loss: the share that stays when the task is drawn again


@dataclass
class SourceConfig:
    """Where rows come from, and what their columns are."""

    path: str = MISSING  # a file | a folder | hub:ORG/NAME | metatrain:reviews | metatrain:everyday
    text: str = "text"  # column of the texts
    pictures: bool = False  # `path` is a folder of pictures, TASK/LABEL/FILE or LABEL/FILE, and there are no columns
    pair: str | None = None  # column of a second text that belongs to the first (a premise and its hypothesis, say)
    label: str = "label"  # column of the labels
    # Labels in other words, for methods that read them: {LOC: location}, {1: bad, 2: bad, 5: good}; those of one word are one label.
    label_words: dict[Any, str] = field(default_factory=dict)
    target: str | None = None  # text-to-text tasks: column of the wanted texts, in place of `label`
    bad_rows: str = "refuse"  # of files: refuse | skip (and count)
    score: str = "chrf"  # of text-to-text tasks: chrf | bleu | rouge1 | rouge2 | rougeL | exact_match
    task: str | None = None  # column that names the task; null: each file is one task
    hub_config: str | None = None  # hub data sets: the subset
    hub_revision: str | None = None  # hub data sets: the revision


@dataclass
class TasksConfig(SourceConfig):
    """The task distribution (config group `tasks`)."""

    name: str = "reviews"  # of the distribution, for the log
    variant: str | None = None  # of several splits that are published; for other settings to refer to, as ${tasks.variant}
    # Further sources, each with a name of its own; below, its files are called NAME/FILE. A file that is a task is called NAME.
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    meta_train: SplitConfig = field(default_factory=lambda: SplitConfig(tasks=["*"]))
    meta_validation: SplitConfig = field(default_factory=SplitConfig)
    meta_test: SplitConfig = field(default_factory=SplitConfig)
    holdout: float = 0.2  # share of tasks held out for each of validation and test where neither names any
    # Texts of test tasks among the training tasks: refuse | drop (from training) | drop_queries (what support sets alone may draw is
    # trained on: the test classes are known, but few of their texts) | keep (to test the machinery).
    overlap: str = "refuse"
    size_power: float = 0.0  # a training task of n texts is drawn in proportion to n to this power; 0: all tasks as often
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    masked_words: MaskedWordsConfig = field(default_factory=MaskedWordsConfig)
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    sentence_order: PairsConfig = field(default_factory=PairsConfig)  # are two sentences in order?
    same_text: PairsConfig = field(default_factory=PairsConfig)  # are two sentences of one text?


@dataclass
class EpisodeConfig:
    """How episodes are drawn (config group `episode`)."""

    way: int | None = None  # classes per episode; null: every class of the task
    shots: int = 5  # support examples per class
    queries: int | None = 5  # query examples per class, fewer where a class has no more; null: every row not in the support set
    permute_labels: bool = True  # a new class order each episode, so that labels must be learned from the support set
    # Share of training episodes whose classes come from all training tasks at once: tasks that no file has.
    mix: float = 0.0
