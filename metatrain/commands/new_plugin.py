"""`metatrain init plugin KIND NAME`: write a package with a plug-in and its test."""

from __future__ import annotations

import re
from pathlib import Path

from metatrain import plugins
from metatrain.commands.init import USAGE as USAGE
from metatrain.config.explain import suggestion
from metatrain.errors import UserError

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=69"]
build-backend = "setuptools.build_meta"

[project]
name = "{package}"
version = "0.1"
dependencies = ["metatrain-nlp"]

[tool.setuptools]
py-modules = ["{name}"]

[project.entry-points."{group}"]
{name} = "{name}:{example}"
"""
_TEST = """\
\"\"\"The plug-in passes the checks of metatrain.\"\"\"

import subprocess
import sys


def test_the_plug_in_passes_the_checks():
    found = subprocess.run([sys.executable, "-m", "metatrain", "doctor", "plugin={name}"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
"""


def main(arguments: list[str]) -> None:
    """Entry point; `arguments`: the kind, and the name of the plug-in."""
    kinds = {kind.template: group for group, kind in plugins.KINDS.items()}
    if len(arguments) != 2 or arguments[0] not in kinds:
        near = suggestion(arguments[0], kinds) if arguments else ""
        raise UserError(f"metatrain init plugin takes a kind and a name; the kinds are {', '.join(kinds)}{near}")
    folder = write(kinds[arguments[0]], arguments[1])
    kind = plugins.KINDS[kinds[arguments[0]]]
    print(f"written: {', '.join(str(path) for path in sorted(folder.iterdir()))}")
    print(f"next: pip install -e {folder} && metatrain doctor plugin={folder.name}; {kind.setting} then accepts {folder.name}")


def completions(before: list[str]) -> list[str]:
    """Return the completions: a kind; the name is free."""
    return [] if before else [kind.template for kind in plugins.KINDS.values()]


def write(group: str, name: str) -> Path:
    """Write the package of a plug-in of this group; return its folder.

    Raises:
        UserError: the name is no name of a module, or the folder exists.
    """
    if not re.fullmatch(r"[a-z]\w*", name, re.ASCII):
        raise UserError(f"'{name}' is not a valid name of a module; use lower-case letters, digits and _")
    folder, kind = Path(name), plugins.KINDS[group]
    if folder.exists():
        raise UserError(f"{folder} already exists; choose another name")
    content = (Path(__file__).parents[1] / "templates" / f"{kind.template}.py").read_text(encoding="utf-8")
    folder.mkdir()
    facts = {"package": name.replace("_", "-"), "name": name, "group": group, "example": kind.example}
    (folder / "pyproject.toml").write_text(_PYPROJECT.format(**facts), encoding="utf-8")
    (folder / f"{name}.py").write_text(content, encoding="utf-8")
    (folder / f"test_{name}.py").write_text(_TEST.format(**facts), encoding="utf-8")
    return folder
