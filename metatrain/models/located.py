"""Location of the transformer of `model.name`: of models with a name of their own, and of any other."""

from __future__ import annotations

from metatrain.models import minilm, mpnet, smollm2
from metatrain.models.config import ModelConfig
from metatrain.models.folders import folder_of_transformer


def located(config: ModelConfig) -> tuple[str, str]:
    """Return (path or hub id of the transformer of `model.name`, description for the log; "": `name_in_log` describes it).

    Raises:
        UserError: a model with a name of its own is not on this machine and hub access is disabled, or a pipeline's list of modules is unreadable.
    """
    if config.name == "minilm":
        return minilm.resolve()
    if config.name == "mpnet":
        return mpnet.resolve()
    if config.name == smollm2.NAME:
        return smollm2.resolve(config.path)
    return folder_of_transformer(config.name), ""
