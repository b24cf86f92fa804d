"""A training job: what `train`, `resume` and `sweep` hand to the processes that run it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from metatrain.config.compose import typed
from metatrain.config.schema import TrainConfig
from metatrain.config.settings import Change, escaped


@dataclass(frozen=True)
class Job:
    """A training run to start or to resume."""

    config: TrainConfig
    path: Path
    overrides: list[str]
    of_search: bool = False  # a trial of a search, which never becomes `latest`
    changes: tuple[Change, ...] | None = None  # resumed run: settings that change from here on; None: a new run

    @property
    def is_resumed(self) -> bool:
        return self.changes is not None

    @property
    def changed(self) -> list[str]:
        """Return the keys of the settings that change."""
        return [change.key for change in self.changes or ()]

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values, for another process of this machine."""
        return {**asdict(self), "path": str(self.path.resolve())}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """Return the job that `to_json` has written."""
        config = typed(OmegaConf.create(escaped(values["config"])), TrainConfig)
        changes = None if values["changes"] is None else tuple(Change(**each) for each in values["changes"])
        return cls(config, Path(values["path"]), values["overrides"], values["of_search"], changes)
