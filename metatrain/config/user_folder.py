"""Configuration outside the package: the user's folder (`--config-dir`), which is searched before the packaged one, and the saved
configuration of a run. Former keys of settings are translated in both.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import Container, OmegaConf

from metatrain.config.renamed import NOTES, current, said_of
from metatrain.config.settings import leaves

_MOST = 5  # maximum number of files named in the message


USER_SCHEME = "user-file"
_GLOBAL = "# @package _global_"  # the keys of such a file are those of the whole configuration


class UserFiles(FileConfigSource):
    """Configuration files whose settings may have former keys."""

    saved_in: Path | None = None  # the run whose configuration metatrain itself has written: no note is needed there

    @staticmethod
    def scheme() -> str:
        return USER_SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
        package = result.header.get("package") or config_path.rpartition("/")[0].replace("/", ".")
        result.config, former = current_settings(result.config, "" if package == "_global_" else package)
        for key in () if Path(self.path) == self.saved_in else former:
            NOTES.add(f"{Path(self.path, self._normalize_file_name(config_path))}: {said_of(key)}")
        return result


def current_settings(config: Container, group: str = "") -> tuple[Container, list[str]]:
    """Return (the content of a file with settings under their present keys, the former keys that it has)."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    if not isinstance(plain, dict):  # a list: no settings, as another check will say
        return config, []
    settings, former = current(plain, group)
    return (OmegaConf.create(settings) if former else config), former


class UserFolderFirst(SearchPathPlugin):
    """Put the user's folder before the packaged one in the search path; Hydra puts it after."""

    folders: Sequence[Path] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.folders:
            search_path.prepend("metatrain", f"{USER_SCHEME}://{folder}", anchor="main")


@contextmanager
def searched_first(arguments: Sequence[str], run: Path | None = None) -> Iterator[Path | None]:
    """Search the folder named by `--config-dir` first, then the directory of a run, inside this context, which yields the folder or None."""
    parser = argparse.ArgumentParser(add_help=False)  # as Hydra's own: accepts `--config-dir x`, `--config-dir=x`, `-cd x`
    parser.add_argument("--config-dir", "-cd", type=Path)
    for plugin in (UserFiles, UserFolderFirst):
        Plugins.instance().register(plugin)
    folder = parser.parse_known_args(arguments)[0].config_dir
    UserFiles.saved_in = None if run is None else run.resolve()
    UserFolderFirst.folders = [each.resolve() for each in (run, folder) if each is not None]
    try:
        yield folder
    finally:
        UserFolderFirst.folders = ()


def folders() -> list[Path]:
    """Return the folders of configuration that the running command searches, in their order."""
    return [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.schema in ("file", USER_SCHEME)]


def file_of(group: str, option: str | None) -> Path | None:
    """Return the file of an option of a config group; None: no folder that the running command searches has one."""
    return next((path for folder in folders() if (path := folder / group / f"{option}.yaml").is_file()), None)


def settings_of_option(group: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the file of the option that is chosen from a config group, and the keys of the settings in it; nothing if none is chosen."""
    file = file_of(group, HydraConfig.get().runtime.choices.get(group))
    if file is not None:
        settings = dict(settings_in(file))
        yield f"{group}/{file.name}", [key for key in settings if key.partition(".")[0] not in ("defaults", "hydra")]


def settings_in(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the present keys and the values of the settings in a file of a config group; lists are values."""
    text = file.read_text(encoding="utf-8")
    group = "" if _GLOBAL in text else file.parent.name
    settings: Any = OmegaConf.to_container(current_settings(OmegaConf.create(text), group)[0], resolve=False)
    yield from leaves(settings if isinstance(settings, dict) else {}, group)


def clashes(folder: Path, packaged: Path) -> list[str]:
    """Return a line that names the packaged files replaced by files of the user's folder, or an empty list."""
    every = [path.relative_to(packaged) for path in sorted(packaged.rglob("*.yaml"))]
    names = [str(name) for name in every if (folder / name).is_file() and (folder / name).read_bytes() != (packaged / name).read_bytes()]
    shown = ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
    return [f"--config-dir {folder}: used in place of the packaged files of the same names: {shown}"] if names else []
