"""Errors do not lead in a circle: each piece of advice is followed one step further, and every setting that a message names is there."""

import ast
import re
from functools import cache

import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metatrain.checkpoints.adaptation import check_none_of_these
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.cli import COMMANDS
from metatrain.config.compose import composed, groups_of
from metatrain.config.overrides import normalise
from metatrain.config.schema import SCHEMAS, Overrides
from metatrain.config.settings import settings_of
from metatrain.errors import UserError
from metatrain.meta.algorithm import check_algorithm

KEYS = {command: {setting.key for setting in settings_of(schema)} for command, schema in SCHEMAS.items()}
ANY = set().union(*KEYS.values())
_SETTING = r"(?<![\w./-])[a-z_]+\.[a-z_]+=[\w-]+"
ADVICE = re.compile(rf"(?:set|choose|add|or) ({_SETTING}(?:(?: and | ){_SETTING})*)")
REFUSED = {
    "finetune": [
        "inner.fit_head=true algorithm.adapt=all",
        "oos_false_rejection_rate=0.1 inner.fit_head=false algorithm.adapt=all",
        "oos_false_rejection_rate=0.1 inner.fit_head=false",
        "oos_false_rejection_rate=2 algorithm=recommended",
        "inner.fit_encoder=true inner.fit_head=false",
        "algorithm=recommanded",
        "algorithm.head=linear algorithm.adapt=all inner.fit_head=false",
        "algorithm.head=cosine",
        "algorithm.head=zero algorithm.adapt=body inner.fit_head=false",
        "algorithm=protonet_cosine model.normalize=false",
        "algorithm=fomaml algorithm.adapt=pattern",
        "algorithm.adapt=last_layers algorithm.last_layers=0 inner.fit_head=false",
        "model.pooling=max",
    ],
    "train": [
        "algorithm.head=cosine",
        "inner.fit_head=true",
        "inner.fit_encoder=true",
        "algorithm.adapt=body",
        "inner.steps=0",
        "algorithm.head=joint inner.evaluation_steps=0",
        "algorithm.adapt=context algorithm.meta_gradient=reptile",
        "algorithm.train=adapted algorithm.adapt=head",
        "algorithm.meta_gradient=implicit",
        "algorithm.meta_gradient=reptile algorithm.multi_step_until=5",
        "algorithm.head=in_context inner.steps=1",
        "algorithm.adapt=pattern",
        "algorithm.adapt=head algorithm.head=lm",
        "algorithm.head=lm inner.fit_head=true",
    ],
}


@cache
def _base(command: str):
    return composed(command, ["checkpoint=tiny", "data.train=x"] if command == "finetune" else ["model=tiny"], SCHEMAS[command])


def refusal(command: str, given: list[str]) -> str:
    """What is said of these settings before a command begins its work."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(_base(command)), OmegaConf.from_dotlist(normalise(command, given))))
        if command == "train":
            check_algorithm(config.algorithm, config.inner, config.model)
        else:
            settings = Overrides(config.algorithm, config.inner, config.model)
            opened = open_checkpoint(config.checkpoint, settings, torch.device("cpu"), torch.float32, lambda line: None)
            check_none_of_these(config.oos_false_rejection_rate, opened.learner)
    except OmegaConfBaseException as error:
        raise AssertionError(f"metatrain {command} has no such setting: {given}") from error
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("command", "settings"), [(command, settings) for command, each in REFUSED.items() for settings in each])
def test_advice_is_taken(command, settings):
    given = settings.split()
    first = refusal(command, given)
    assert first, "this is refused no more"
    for advice in ADVICE.findall(first):
        advised = advice.replace(" and ", " ").split()
        changed = {item.partition("=")[0]: item for item in [*given, *advised]}
        second = refusal(command, list(changed.values()))
        assert second != first, f"{advice} changes nothing"


def test_from_an_error_to_a_fitted_head_in_two_steps(cli, examples):
    command = ("finetune", "checkpoint=tiny", f"data.train={examples}", "report=false", "hardware.threads=1")
    found = cli(*command, "inner.fit_head=true", "algorithm.adapt=all")
    assert found.code == 2 and "set algorithm.adapt=head" in found.err
    assert cli(*command, "inner.fit_head=true", "algorithm.adapt=head", "hydra.run.dir=fitted").code == 0
    found = cli(*command, "algorithm=recommended", "oos_false_rejection_rate=0.2", "hydra.run.dir=recommended")
    assert found.code == 0 and "cross-validated accuracy" in found.out


def messages() -> list[tuple[str, str]]:
    """The texts of the package's errors, with where they stand."""
    found = []
    for path in sorted((ROOT / "metatrain").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "RestartableError"):
                parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                found += [(f"{path.relative_to(ROOT)}:{node.lineno}", part) for part in parts]
    return found


def test_every_setting_that_an_error_names_is_there():
    groups = {key.partition(".")[0] for key in ANY if "." in key}
    named = re.compile(rf"(?<![\w./])((?:{'|'.join(sorted(groups))})\.[a-z_]+(?:\.[a-z_]+)*)(?![\w(/-])")
    found = {(place, key) for place, text in messages() for key in named.findall(text)}
    assert len(found) > 100
    assert not [(place, key) for place, key in found if key not in ANY]


def test_every_command_that_an_error_advises_is_there():
    named = {word for _, text in messages() for word in re.findall(r"(?:; |[a-z]: )metatrain ([a-z]+)\b", text)}
    assert len(named) > 3 and named <= COMMANDS.keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["finetune", "experiment=arsc"], ["metatrain finetune has no setting 'experiment'", "--help"]),
        (["finetune", "debug=fast"], ["metatrain finetune has no setting 'debug'"]),
        (["finetune", "tasks=reviews"], ["metatrain finetune has no setting 'tasks'"]),
        (["finetune", "outer=adamw"], ["metatrain finetune has no setting 'outer'"]),
        (["evaluate", "+experiment=arsc"], ["metatrain evaluate has no setting 'experiment'"]),
        (["predict", "tracking=none"], ["metatrain predict has no setting 'tracking'"]),
    ],
)
def test_a_group_of_another_command_is_refused_by_its_name(cli, arguments, words):
    found = cli(*arguments)
    assert found.code == 2 and all(word in found.err for word in words), found.err
    assert arguments[1].lstrip("+").partition("=")[0] not in groups_of(arguments[0])
