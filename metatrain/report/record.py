"""Files of a run that its report is built from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metatrain.errors import UserError
from metatrain.run.directory import RunDirectory
from metatrain.tracking.metrics import read_metrics
from metatrain.tracking.score_names import ACCURACY

# Former keys of results.json of `finetune` -> keys.
_RENAMED = {
    "pull": "l2_strength",
    "strangers": "out_of_scope",
    "found": "rejected",
    "known_texts_lost": "false_rejection_rate",
    "accuracy_with_none_of_these": "accuracy_with_rejection",
}


@dataclass(frozen=True)
class Record:
    """Contents of the text files of a run directory; missing files give empty values."""

    path: Path
    settings: dict[str, Any]  # config.yaml
    overrides: list[str]
    facts: dict[str, Any]  # run.json
    results: dict[str, Any]  # results.json, under its present keys
    analysis: dict[str, Any]
    metrics: list[dict[str, Any]]
    timings: list[dict[str, Any]]

    @property
    def title(self) -> str:
        return f"{self.settings.get('name', 'run')} · {self.path.name}"

    @property
    def command(self) -> str:
        """The command of the run: `train`, `evaluate`, `finetune` or `score`."""
        return self.facts.get("command", "train")

    def score_of(self, split: str) -> str:
        """Return the key of the score that the metrics of a split have under `accuracy`."""
        return self.facts.get("scores", {}).get(split, ACCURACY)

    def of_split(self, split: str) -> list[dict[str, Any]]:
        """Return the metrics of the split `meta_train` or `meta_validation`."""
        return [record for record in self.metrics if record.get("split") == split]


def read(path: Path) -> Record:
    """Read the record of a run.

    Raises:
        UserError: there is no run, or one of its files cannot be read.
    """
    path = RunDirectory.find(str(path)).path
    try:
        settings: Any = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
        overrides: Any = OmegaConf.to_container(OmegaConf.load(path / "overrides.yaml")) if (path / "overrides.yaml").is_file() else []
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{path / 'config.yaml'} cannot be read: {str(error).splitlines()[0]}") from error
    metrics, timings = (_lines(path / name) for name in ("metrics.jsonl", "timings.jsonl"))
    facts, results = _object(path / "run.json"), _object(path / "results.json")
    if facts.get("command") == "finetune":
        results = _renamed(results)
    if "by_shots" in results:  # JSON has them in the order of their spelling: 1, 16, 5
        results = {**results, "by_shots": dict(sorted(results["by_shots"].items(), key=lambda part: (len(part[0]), part[0])))}
    return Record(path, settings, list(overrides), facts, results, _object(path / "analysis.json"), metrics, timings)


def _renamed(results: dict[str, Any]) -> dict[str, Any]:
    """Return results of `finetune` under their present keys."""
    return {_RENAMED.get(key, key): _renamed(value) if isinstance(value, dict) else value for key, value in results.items()}


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(path)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
