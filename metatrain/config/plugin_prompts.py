"""Prompts of plug-ins as options of the config group `prompt`, beside the files of conf/prompt/.

Hydra searches them last, so that a file of the same name comes first. A plug-in is imported only when it is chosen.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from metatrain import plugins
from metatrain.config.settings import escaped
from metatrain.errors import UserError
from metatrain.models.config import PromptConfig

GROUP = "prompt"
_SCHEME = "plug-in"
# Left out where they have their defaults, as in the files of conf/prompt/: `evaluate` and `finetune` then keep those of the checkpoint.
_OPTIONAL = ("words", "scoring")


def values_of(name: str) -> dict[str, Any]:
    """Return the values of `prompt.*` that the plug-in `prompt=NAME` sets, by the key in the group.

    Raises:
        UserError: it is no `PromptConfig`, or cannot be imported.
    """
    prompt, plain = plugins.load(plugins.PROMPTS, name), PromptConfig()
    if not isinstance(prompt, PromptConfig):
        raise UserError(f"{GROUP}={name}: a plug-in of {plugins.PROMPTS} must be a metatrain.models.config.PromptConfig, not {type(prompt).__name__}")
    return {key: value for key, value in asdict(prompt).items() if key not in _OPTIONAL or value != getattr(plain, key)}


class PluginPrompts(ConfigSource):
    """The config group `prompt` with the prompts of plug-ins."""

    @staticmethod
    def scheme() -> str:
        return _SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        values = escaped(values_of(_name(config_path)))
        return ConfigResult(provider=self.provider, path=self.full_path(), config=OmegaConf.create(values), header={"package": None})

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") == GROUP

    def is_config(self, config_path: str) -> bool:
        return config_path.startswith(f"{GROUP}/") and _name(config_path) in plugins.names(plugins.PROMPTS)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if not config_path.strip("/"):
            return [] if results_filter == ObjectType.CONFIG else [GROUP]
        return plugins.names(plugins.PROMPTS) if self.is_group(config_path) and results_filter != ObjectType.GROUP else []


class _SearchedLast(SearchPathPlugin):
    """Put the prompts of plug-ins at the end of the search path, if there are any."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if plugins.names(plugins.PROMPTS):
            search_path.append("metatrain", f"{_SCHEME}://{GROUP}")


def register() -> None:
    """Make the prompts of plug-ins known to Hydra."""
    for plugin in (PluginPrompts, _SearchedLast):
        Plugins.instance().register(plugin)


def _name(config_path: str) -> str:
    return config_path.removeprefix(f"{GROUP}/").removesuffix(".yaml")
