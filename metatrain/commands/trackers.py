"""Opening the record of a run in Weights & Biases or TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from metatrain.config.compose import NOT_HASHED, hash_of
from metatrain.config.schema import FinetuneConfig, TrainConfig
from metatrain.run.directory import RunDirectory
from metatrain.tracking.tensorboard import TensorBoardRun
from metatrain.tracking.weights_and_biases import TENSORBOARD, Tracker, WandbRun


def open_tracker(
    config: TrainConfig | FinetuneConfig, run: RunDirectory, say: Callable[[str], None], step: int = 0, logged: int = 0, writes: bool = True
) -> Tracker:
    """Open the Weights & Biases run or the TensorBoard files of a run.

    step: meta-updates at which a resumed run begins; logged: those that Weights & Biases has; writes: False: in ranks that do not write, it does nothing.
    """
    if config.tracking.mode == TENSORBOARD:
        return TensorBoardRun(run.path / "tensorboard" if writes else None, step)
    tracking = replace(config.tracking, group=config.tracking.group or group_of(config), mode=config.tracking.mode if writes else "none")
    name, wandb_id = f"{config.name}-seed{config.seed}", run.read_record().get("wandb_id")
    wandb = WandbRun(tracking, name, run.path, config, say, wandb_id, logged)
    if wandb.run_id:
        run.update(wandb_id=wandb.run_id)
    return wandb


def group_of(config: TrainConfig | FinetuneConfig) -> str:
    """Return the name that runs share whose settings differ only in the seed, and in what changes no results."""
    settings = {key: value for key, value in asdict(config).items() if key not in (*NOT_HASHED, "seed")}
    return f"{config.name}-{hash_of(settings)}"


def numbers_of(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of nested results by their path, such as `test/accuracy`; lists and truth values are left out."""
    found: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            found.update({f"{key}/{name}": number for name, number in numbers_of(value).items()})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[str(key)] = value
    return found
