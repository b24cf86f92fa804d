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


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports() -> dict[str, set[str]]:
    """Return for each module of the package the modules that it imports anywhere: at the top, in functions and under TYPE_CHECKING."""
    modules, found = {module_of(path) for path in SOURCES}, {}
    for path in SOURCES:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                of_module = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= of_module & modules or {node.module}
        found[module_of(path)] = (named & modules) - {module_of(path)}
    return found


def test_no_module_imports_itself_through_others():
    left = imports()
    while free := [module for module, used in left.items() if not used & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"circular imports among (or above) {sorted(left)}"


def test_dependencies_between_rooms_point_one_way():
    allowed = {
        "gradient": set(),
        "tasks": set(),
        "run": {"config", "tracking"},
        "tracking": set(),
        "search": set(),
        "study": {"config", "run", "evaluation"},
        "report": {"tracking", "run"},
        "models": {"tasks"},
        "meta": {"gradient", "models", "tasks"},
        "evaluation": {"meta", "gradient", "models", "tasks"},
        "training": {"evaluation", "meta", "gradient", "models", "tasks", "run", "tracking", "config"},
        "checkpoints": {"training", "evaluation", "meta", "gradient", "models", "tasks", "run", "config"},
        "api": {"checkpoints", "meta", "gradient", "models", "tasks", "run", "config", "inputs", "finetuned_model", "estimator"},
        "estimator": {"checkpoints", "meta", "models", "tasks", "run", "tracking", "config", "inputs", "estimator_input"},
        "estimator_input": {"checkpoints", "tasks", "inputs"},
        "finetuned_model": {"models", "inputs"},
        "inputs": {"tasks"},
        "serving": {"api", "models", "run", "inputs"},
    }
    for module, used in imports().items():
        room = (*module.split("."), "")[1]
        if room in allowed:
            rooms = {(*other.split("."), "")[1] for other in used}
            assert rooms - {"conditions", "errors", "plugins", "paths", "version"} <= allowed[room] | {room}, module
        if room == "config":  # settings of a component are the dataclass beside it; `config` knows nothing else of it
            known = {"metatrain.conditions", "metatrain.errors", "metatrain.paths", "metatrain.plugins", "metatrain.tracking.console"}
            assert all(other.endswith(".config") or other.startswith("metatrain.config") for other in used - known), module


def test_meta_is_ordered_by_level():
    levels = [
        ["budget", "config", "cuda_graphs", "plan", "progress", "prototypes", "output_cache", "name_choice", "noise", "schedule", "temperature"],
        ["functional"],
        ["text_losses", "leave_one_out", "inner_losses", "language_losses", "vectorised"],
        ["head_fit", "unlabelled_fit", "label_fit", "thresholds", "number_fit", "encoder_fit", "contrastive", "strategies"],
        ["learner", "support_fit", "label_set_fit", "encoder_learner", "language_learner", "sets_across_tasks"],
        ["algorithm", "memory", "probe"],
    ]
    level = {name: number for number, names in enumerate(levels) for name in names}
    for module, used in imports().items():
        if module.startswith("metatrain.meta."):
            others = {other.split(".")[2] for other in used if other.startswith("metatrain.meta.")}
            assert all(level[other] <= level[module.split(".")[2]] for other in others), module


def test_configs_hold_values_only():
    files = list((ROOT / "conf").rglob("*.yaml"))
    assert len(files) > 20
    for path in files:
        assert not re.search(r"\b_target_\b", path.read_text()), path
