"""The user's own configuration folder (`--config-dir`): it is searched before the packaged one, and what it replaces there is said."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

_MOST = 5  # files that are named


class UserFolderFirst(SearchPathPlugin):
    """Puts the user's folder before the packaged one; Hydra itself puts it behind."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("metatrain", f"file://{self.folder.resolve()}", anchor="main")


@contextmanager
def searched_first(arguments: Sequence[str]) -> Iterator[Path | None]:
    """Within, the folder that these arguments of Hydra's name is searched first; gives it, or None if they name none."""
    parser = argparse.ArgumentParser(add_help=False)  # of Hydra's own kind: `--config-dir x`, `--config-dir=x`, `-cd x`
    parser.add_argument("--config-dir", "-cd", type=Path)
    Plugins.instance().register(UserFolderFirst)
    UserFolderFirst.folder = parser.parse_known_args(arguments)[0].config_dir
    try:
        yield UserFolderFirst.folder
    finally:
        UserFolderFirst.folder = None


def clashes(folder: Path, packaged: Path) -> list[str]:
    """A line that names the packaged files that the user's take the place of, if there are any."""
    every = [path.relative_to(packaged) for path in sorted(packaged.rglob("*.yaml"))]
    names = [str(name) for name in every if (folder / name).is_file() and (folder / name).read_bytes() != (packaged / name).read_bytes()]
    shown = ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
    return [f"--config-dir {folder}: used in place of the packaged files of the same names: {shown}"] if names else []
