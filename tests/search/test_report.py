import pytest

pytest.importorskip("optuna")

import yaml  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from metatrain.config.overrides import override  # noqa: E402
from metatrain.search.report import experiment  # noqa: E402


def test_the_best_settings_are_an_experiment():
    base = ["+experiment=sentiment_fewshot", "outer.steps=20", "model=tiny", "outer.lr=0.1"]
    found = ["outer.lr=1e-05", "algorithm=anil", "inner.steps=3"]
    text = experiment(base, found, ["experiment", "model", "algorithm"], 0.75, "best")
    assert text.startswith("# @package _global_\n")
    made = yaml.safe_load(text)
    assert made.pop("defaults") == [{"/experiment": "sentiment_fewshot"}, {"override /model": "tiny"}, {"override /algorithm": "anil"}, "_self_"]
    assert made == {"outer": {"steps": 20, "lr": "1e-05"}, "inner": {"steps": 3}}  # Hydra, unlike this reader, takes 1e-05 for a number


def test_texts_are_read_again_as_they_were():
    name = "d'é \\ ${x}"
    text = experiment([override("tasks.path", name), "tasks.label='a'", "outer.lr=1e-3"], [], ["model"], 0.5, "best")
    made = OmegaConf.create(text)
    assert (made.tasks.path, made.tasks.label, made.outer.lr) == (name, "a", 1e-3)
