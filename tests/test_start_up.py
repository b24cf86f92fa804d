"""What a command imports: a package that it does not use costs seconds before the first line of output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXTRAS = {"optuna", "matplotlib", "peft", "sacrebleu", "rouge_score", "setfit", "sentence_transformers", "psycopg", "py3langid", "openpyxl", "PIL"}
COMPOSES = {"hydra", "omegaconf", "rich"}
READS_DATA = {*COMPOSES, "numpy", "pyarrow"}
OF_TRANSFORMERS = {"torch", "transformers", "scipy", "jinja2", "PIL"}  # what transformers imports with its models
HEAVY = {*READS_DATA, *OF_TRANSFORMERS, "sklearn", "pandas", "datasets", "wandb", *EXTRAS}
ALLOWED = {
    "--help": set(),
    "--version": set(),
    "trian": set(),
    "ls experiments": COMPOSES,
    "explain inner.lr": {*READS_DATA, "torch"},  # heads and inner rules say what they read
    "tasks": {*READS_DATA, "sklearn", "scipy", "pandas", "py3langid"},  # near-duplicates and languages
    "predict model=MODEL text=nice": {*READS_DATA, *OF_TRANSFORMERS},
    "plan model=tiny debug=fast hardware.threads=1": {*READS_DATA, *OF_TRANSFORMERS, "sklearn", "pandas"},  # logistic regression is an arm
}  # fmt: skip
MARKS = {"predict": pytest.mark.slow, "plan": pytest.mark.nightly}  # they load a model

SCRIPT = """
import json, sys
from metatrain.cli import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name, module in sys.modules.items() if module is not None})]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A classifier that `metatrain predict` reads."""
    import torch

    from metatrain.models.config import ModelConfig
    from metatrain.models.encoder import load_encoder
    from metatrain.models.export import save_classifier

    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=False)
    folder = tmp_path_factory.mktemp("classifier") / "model"
    save_classifier(folder, encoder, torch.zeros(2, encoder.hidden_size), torch.zeros(2), ["bad", "good"])
    return folder


@pytest.mark.parametrize("command", [pytest.param(each, marks=MARKS.get(each.split()[0], ())) for each in ALLOWED])
def test_a_command_imports_what_it_uses(command, request, tmp_path):
    arguments = [f"model={request.getfixturevalue('model')}" if each == "model=MODEL" else each for each in command.split()]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    code, imported = json.loads(done.stderr.splitlines()[-1])
    assert code == (2 if command == "trian" else 0), done.stderr
    assert HEAVY & set(imported) <= ALLOWED[command]
