"""Tasks of the Hugging Face hub, read by the library `datasets`, which is imported here only."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

import datasets
from huggingface_hub import constants

from metatrain.errors import RestartableError, UserError
from metatrain.tasks.config import SourceConfig
from metatrain.tasks.files import Columns, Table
from metatrain.tasks.label_sets import LabelForm, task_table
from metatrain.tasks.rows import Row

_HUB = "hub:"


class Hub:
    """Splits of a data set on the Hugging Face hub."""

    def __init__(self, config: SourceConfig, columns: Columns, form: LabelForm):
        """Raises: UserError: the name is a local folder that `datasets` would interpret as a glob pattern."""
        self.name, self.config, self.columns, self.form = config.path[len(_HUB) :], config, columns, form
        self.is_local = Path(self.name).is_dir()
        if self.is_local and (glob.has_magic(self.name) or "::" in self.name):
            raise UserError(f"tasks.path={config.path}: the library datasets takes this for a pattern; give the folder itself, tasks.path={self.name}")

    def files(self) -> list[str]:
        try:
            return datasets.get_dataset_split_names(self.name, self.config.hub_config, revision=self.config.hub_revision)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._error(error) from error

    def read(self, file: str) -> Table:
        source = f"{self.config.path} [{file}]"
        try:
            # `datasets` caches hub files by revision but local files by modification time, so local files are always read again.
            mode = "force_redownload" if self.is_local else None
            data = datasets.load_dataset(self.name, self.config.hub_config, split=file, revision=self.config.hub_revision, download_mode=mode)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._error(error) from error
        return task_table(source, _dataset_rows(data), self.columns, self.form, self.name.rsplit("/", 1)[-1], self.config.bad_rows)

    def _error(self, error: Exception) -> UserError | RestartableError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, ConnectionError) and not constants.HF_HUB_OFFLINE:
            return RestartableError(f"tasks.path={self.config.path}: the hub cannot be reached ({reason}); try again: the partial download is kept")
        return UserError(f"tasks.path={self.config.path} cannot be loaded: {reason}")


def _dataset_rows(data: datasets.Dataset) -> Iterator[Row]:
    """Yield the rows of a data set, numbered from 1, with class names instead of class numbers, also in lists."""
    classes = {name: feature.names for name, feature in data.features.items() if isinstance(feature, datasets.ClassLabel)}
    inner = {name: getattr(feature, "feature", None) for name, feature in data.features.items()}
    in_lists = {name: feature.names for name, feature in inner.items() if isinstance(feature, datasets.ClassLabel)}
    for number, row in enumerate(data, start=1):
        for name, names in in_lists.items():
            row[name] = None if row[name] is None else [names[label] for label in row[name]]
        for name, names in classes.items():
            row[name] = names[row[name]] if row[name] is not None and row[name] >= 0 else None
        yield number, row
