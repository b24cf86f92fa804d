"""Folds of a task distribution (`tasks.fold`): which sources or files are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metatrain.errors import UserError
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.names import ExactName, named_by_any
from metatrain.tasks.splits import CLAIM_ORDER


def chosen_by_fold(config: TasksConfig, files: Sequence[str]) -> TasksConfig:
    """Return the settings with the files of each split that `tasks.fold` chooses; unchanged without it.

    Raises:
        UserError: there is no such fold, or the settings of the splits contradict it.
    """
    folds = {f"{name}/": source.in_fold for name, source in config.sources.items()}
    if config.in_fold is not None or any(number is not None for number in folds.values()):
        of_file = {file: next((number for prefix, number in folds.items() if file.startswith(prefix)), config.in_fold) for file in files}
        return leave_one_fold_out(config, config.fold, of_file)
    return config if config.fold is None else leave_one_file_out(config, config.fold, files)


def leave_one_fold_out(config: TasksConfig, fold: int | None, of_file: dict[str, int | None]) -> TasksConfig:
    """Return the settings with the files of fold `fold` as meta-test and those of all other folds as meta-train; None: no meta-test.

    The files and support files that the splits name are kept as far as they belong to these folds. Meta-validation is unchanged.

    of_file: fold of each file; None: the file belongs to no fold.

    Raises:
        UserError: there is no such fold.
    """
    numbers = sorted({number for number in of_file.values() if number is not None})
    if fold is not None and fold not in numbers:
        raise UserError(f"tasks.fold={fold} must be one of {', '.join(map(str, numbers))}, or null to train on all of them")
    train = [file for file, number in of_file.items() if number not in (None, fold)]
    test = [file for file, number in of_file.items() if fold is not None and number == fold]
    return replace(config, meta_train=_within(config.meta_train, train), meta_test=SplitConfig() if fold is None else _within(config.meta_test, test))


def _within(split: SplitConfig, files: Sequence[str]) -> SplitConfig:
    """Return a split with only those of its files, and support files, that are among `files`."""

    def chosen(patterns: list[str]) -> list[str]:
        found = named_by_any(patterns, files)
        return [ExactName(file) for file in files if file in found]

    return replace(split, files=chosen(split.files or ["*"]), support_files=chosen(split.support_files), tasks=split.tasks or ["*"])


def leave_one_file_out(config: TasksConfig, fold: int, files: Sequence[str]) -> TasksConfig:
    """Return the settings with file `fold` as meta-test, the next one as meta-validation, and all others as meta-train.

    Raises:
        UserError: there is no such file, there are too few, or a split names files or tasks of its own.
    """
    files = sorted(files)
    if len(files) < 3:
        raise UserError(f"tasks.fold={fold} needs three files or more (meta-train, meta-validation, meta-test); {config.path} has {len(files)}")
    if not 0 <= fold < len(files):
        raise UserError(f"tasks.fold={fold} must be from 0 to {len(files) - 1}: one of {', '.join(f'{number} {file}' for number, file in enumerate(files))}")
    for name in CLAIM_ORDER:
        split: SplitConfig = getattr(config, name)
        if split.files or split.only or split.support_files or split.tasks not in ([], ["*"]):
            raise UserError(
                f"tasks.fold={fold} chooses the files of each split, and tasks.{name} names files or tasks of its own; set tasks.fold=null to use those"
            )
    test, validation = files[fold], files[(fold + 1) % len(files)]
    chosen = {"meta_test": [test], "meta_validation": [validation], "meta_train": [file for file in files if file not in (test, validation)]}
    return replace(config, **{name: replace(getattr(config, name), files=list(map(ExactName, found)), tasks=["*"]) for name, found in chosen.items()})
