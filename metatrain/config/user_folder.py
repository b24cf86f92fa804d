"""The user's configuration folder (`--config-dir`), which is searched before the packaged one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

_MOST = 5  # maximum number of files named in the message


class UserFolderFirst(SearchPathPlugin):
    """Put the user's folder before the packaged one in the search path; Hydra puts it after."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("metatrain", f"file://{self.folder.resolve()}", anchor="main")


@contextmanager
def searched_first(arguments: Sequence[str]) -> Iterator[Path | None]:
    """Search the folder named by `--config-dir` first, inside this context, which yields the folder or None."""
    parser = argparse.ArgumentParser(add_help=False)  # as Hydra's own: accepts `--config-dir x`, `--config-dir=x`, `-cd x`
    parser.add_argument("--config-dir", "-cd", type=Path)
    Plugins.instance().register(UserFolderFirst)
    UserFolderFirst.folder = parser.parse_known_args(arguments)[0].config_dir
    try:
        yield UserFolderFirst.folder
    finally:
        UserFolderFirst.folder = None


def clashes(folder: Path, packaged: Path) -> list[str]:
    """Return a line that names the packaged files replaced by files of the user's folder, or an empty list."""
    every = [path.relative_to(packaged) for path in sorted(packaged.rglob("*.yaml"))]
    names = [str(name) for name in every if (folder / name).is_file() and (folder / name).read_bytes() != (packaged / name).read_bytes()]
    shown = ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
    return [f"--config-dir {folder}: used in place of the packaged files of the same names: {shown}"] if names else []
