"""Promises about the code itself."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = sorted((ROOT / "metatrain").rglob("*.py"))
FORBIDDEN_CALLS = {
    "eval", "exec", "pickle.load", "pickle.loads", "torch.load", "torch.save", "yaml.load", "os.system", "hydra.utils.instantiate", "instantiate",
}  # fmt: skip


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_executes_from_data(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert name_of(node.func) not in FORBIDDEN_CALLS, f"{path}:{node.lineno}"
            assert not any(item.arg == "shell" for item in node.keywords), f"{path}:{node.lineno}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "cloudpickle", "joblib"} & set(names), f"{path}:{node.lineno}"


def test_dependencies_between_rooms_point_one_way():
    allowed = {
        "gradient": {"gradient"},
        "tasks": {"tasks"},
        "run": {"run", "config", "tracking"},
        "tracking": {"tracking", "evaluation"},
        "search": {"search"},
        "study": {"study", "config", "run", "evaluation"},
        "report": {"report", "evaluation", "tracking", "run"},
        "models": {"models", "tasks"},
        "meta": {"meta", "gradient", "models", "tasks"},
        "evaluation": {"evaluation", "meta", "gradient", "models", "tasks"},
        "checkpoints": {"checkpoints", "training", "meta", "gradient", "models", "tasks", "run", "config"},
        "training": {"training", "evaluation", "meta", "gradient", "models", "tasks", "run", "tracking", "config"},
    }
    for path in SOURCES:
        room = path.relative_to(ROOT / "metatrain").parts[0]
        if room in allowed:
            used = set(re.findall(r"^\s*(?:from|import) metatrain\.(\w+)", path.read_text(), flags=re.M))
            assert used - {"errors", "plugins", "paths"} <= allowed[room], path


def test_configs_hold_values_only():
    files = list((ROOT / "conf").rglob("*.yaml"))
    assert len(files) > 20
    for path in files:
        assert not re.search(r"\b_target_\b", path.read_text()), path
