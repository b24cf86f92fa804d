"""Code in every place where data is expected: none of it runs. What it would do is to make a file, which must not be there."""

import json
import os
import pickle
import shutil

import pytest
import torch
import yaml
from faults.injection import FULL, report

from metatrain.run import checkpoint

CALLABLES = (
    *(
        "os.system",
        "os.popen",
        "os.execv",
        "os.spawnl",
        "posix.system",
        "subprocess.run",
        "subprocess.Popen",
        "subprocess.check_output",
        "subprocess.getoutput",
    ),
    *("builtins.eval", "builtins.exec", "builtins.open", "builtins.compile", "builtins.__import__", "pathlib.Path.touch", "shutil.copyfile", "shutil.rmtree"),
    *("importlib.import_module", "runpy.run_path", "pickle.loads", "torch.load", "torch.hub.load", "torch.utils.cpp_extension.load", "numpy.load", "yaml.load"),
    *("hydra.utils.instantiate", "hydra.utils.get_method", "transformers.AutoModel.from_pretrained", "functools.partial", "asyncio.create_subprocess_shell"),
)
TRIED = CALLABLES if FULL else CALLABLES[::5]


class Bomb:
    """What is unpickled makes the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def canary(tmp_path):
    """The file; a test that leaves it has failed."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def test_the_bomb_works(tmp_path):
    """The negative control: this is what must not happen."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "there")))
    assert (tmp_path / "there").exists()


@pytest.fixture
def copied(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def with_new_manifest(folder) -> None:
    """As who has put something there would do it."""
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    manifest["files"] = {name: checkpoint._digest(folder / name) for name in manifest["files"]}
    (folder / checkpoint.MANIFEST).write_text(checkpoint._written(manifest))


def bombs(canary) -> dict[str, bytes]:
    """Pickles as they come."""
    whole = canary.parent / "bomb.pt"
    torch.save(Bomb(canary), whole)
    return {"pickle": pickle.dumps(Bomb(canary)), "torch": whole.read_bytes(), "old torch": pickle.dumps([119547037146038801333356, Bomb(canary)])}


def test_pickles_in_the_place_of_a_checkpoints_files(copied, canary):
    tried = 0
    for name in ("model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", checkpoint.MANIFEST):
        for content in bombs(canary).values():
            folder = canary.parent / f"checkpoint-{tried}"
            shutil.copytree(copied / "checkpoints" / "step-00000003", folder)
            (folder / name).write_bytes(content)
            if name != checkpoint.MANIFEST:
                with_new_manifest(folder)
            with pytest.raises(checkpoint.BrokenCheckpoint):
                checkpoint.load(folder)
            tried += 1
    report("canaries", slot="checkpoint files", tried=tried, fired=0)


def test_paths_out_of_a_checkpoint(copied, canary):
    tried = 0
    for name in ("../../canary", "/etc/passwd", "step-00000003/../x", "model.safetensors/../../x", "\0", "con"):
        folder = canary.parent / f"checkpoint-{tried}"
        shutil.copytree(copied / "checkpoints" / "step-00000003", folder)
        manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
        manifest["files"][name] = {"size": 0, "sha256": ""}
        (folder / checkpoint.MANIFEST).write_text(checkpoint._written(manifest))
        with pytest.raises(checkpoint.BrokenCheckpoint):
            checkpoint.load(folder)
        tried += 1
    report("canaries", slot="manifest paths", tried=tried, fired=0)


@pytest.mark.parametrize("where", ["++inner._target_={}", "++model._target_={}", "+_target_={}", "++tasks.meta_train._target_={}"])
def test_targets_in_overrides(cli, canary, where):
    for name in TRIED:
        found = cli("train", where.format(name), "debug=fast")
        assert found.code == 2 and len(found.err.splitlines()) == 1, found.err
    report("canaries", slot=f"override {where.split('=')[0]}", tried=len(TRIED), fired=0)


def test_targets_in_a_users_config(cli, canary, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    for name in TRIED:
        text = f"# @package _global_\ninner:\n  _target_: {name}\n  _args_: ['touch {canary}']\n"
        (tmp_path / "mine" / "experiment" / "x.yaml").write_text(text)
        found = cli("train", "--config-dir", str(tmp_path / "mine"), "+experiment=x", "debug=fast")
        assert found.code == 2 and len(found.err.splitlines()) == 1, found.err
    report("canaries", slot="config file", tried=len(TRIED), fired=0)


YAML = (
    "!!python/object/apply:os.system ['touch {}']", "!!python/object/new:os.system ['touch {}']", "!!python/name:os.system", "!!python/module:os",
    "!!python/object/apply:subprocess.check_output [['touch', '{}']]", "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {}']",
)  # fmt: skip


@pytest.mark.parametrize("value", YAML)
def test_tags_in_yaml(cli, copied, canary, tmp_path, value):
    value = value.format(canary)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "x.yaml").write_text(f"# @package _global_\nname: {value}\n")
    found = cli("train", "--config-dir", str(tmp_path / "mine"), "+experiment=x", "debug=fast")
    assert found.code == 2 and len(found.err.splitlines()) == 1, found.err
    (copied / "config.yaml").write_text((copied / "config.yaml").read_text().replace("seed: 0", f"seed: {value}"))
    found = cli("resume", str(copied))
    assert found.code == 2 and len(found.err.splitlines()) == 1, found.err
    found = cli("finetune", f"checkpoint={copied}", f"data.train={tmp_path / 'none.csv'}")
    assert found.code == 2
    report("canaries", slot="YAML tags", tried=3, fired=0)


@pytest.mark.parametrize("resolver", ["oc.decode", "python", "eval", "oc.create", "hydra", "instantiate"])
def test_resolvers(cli, canary, resolver):
    for expression in (f"__import__('os').system('touch {canary}')", f"!!python/object/apply:os.system ['touch {canary}']"):
        found = cli("train", f"name='${{{resolver}:\"{expression}\"}}'", "debug=fast", "seed=x")
        assert found.code == 2 and len(found.err.splitlines()) == 1, found.err
    report("canaries", slot="interpolations", tried=2, fired=0)


@pytest.mark.parametrize("command", [*(pytest.param(each, marks=pytest.mark.nightly) for each in ("finetune", "evaluate")), "predict", "train"])
def test_models_that_bring_code(cli, copied, canary, examples, command):
    """A model directory with code of its own, as on the hub, and a pickle in the place of its weights."""
    folder = copied / "model"
    code = f"import os\nos.system('touch {canary}')\nfrom transformers import BertModel, BertConfig, BertTokenizerFast\n"
    code += "class Mine(BertModel): pass\nclass MineConfig(BertConfig): pass\nclass MineTokenizer(BertTokenizerFast): pass\n"
    for name in ("modeling_mine.py", "__init__.py", "configuration_mine.py", "tokenization_mine.py", "adaptation.py", "handler.py"):
        (folder / name).write_text(code)
    classes = {"AutoConfig": "modeling_mine.MineConfig", "AutoModel": "modeling_mine.Mine", "AutoModelForSequenceClassification": "modeling_mine.Mine"}
    classes["AutoTokenizer"] = ["modeling_mine.MineTokenizer", "modeling_mine.MineTokenizer"]
    config = json.loads((folder / "config.json").read_text())
    commands = {
        "finetune": ["finetune", f"checkpoint={folder}", f"data.train={examples}"],
        "evaluate": ["evaluate", f"checkpoint={folder}", "tasks=reviews", "evaluation.episodes=1", "evaluation.shots=[1]"],
        "predict": ["predict", f"model={folder}", "text=fine"],
        "train": ["train", "debug=fast", f"model.name={folder}", "outer.steps=1", "validation.every=0", "evaluation.episodes=1"],
    }
    tried = 0
    for changes in ({"auto_map": classes}, {"auto_map": classes, "model_type": "mine"}, {"model_type": "mine"}, {"_attn_implementation": "mine/code"}):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**json.loads((folder / "tokenizer_config.json").read_text()), "auto_map": classes, "tokenizer_class": "MineTokenizer"})
        )
        found = cli(*commands[command])
        assert found.code in (0, 2), found.err
        if found.code == 2:
            assert len(found.err.splitlines()) == 1, found.err
        shutil.rmtree("outputs", ignore_errors=True)
        tried += 1
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    for name, content in bombs(canary).items():
        (folder / "pytorch_model.bin").write_bytes(content)
        found = cli(*commands[command])
        assert found.code == 2 and len(found.err.splitlines()) == 1, (name, found.err)
        tried += 1
    report("canaries", slot=f"model directory, {command}", tried=tried, fired=0)


def test_remote_code_needs_a_pinned_commit(cli, canary):
    found = cli("train", "debug=fast", "model=hub", "model.name=someone/model", "model.trust_remote_code=true", "model.revision=main")
    assert found.code == 2 and "40-digit commit" in found.err


def test_data_that_would_be_code(cli, canary, tmp_path):
    text = f"__import__('os').system('touch {canary}')"
    rows = [{"text": f"{text} {number}", "label": label} for number in range(12) for label in (text, f"=cmd|' /C touch {canary}'!A0")]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"tasks": text}))
    found = cli("finetune", "checkpoint=tiny", f"data.train={tmp_path / 'data.jsonl'}")
    assert found.code == 0, found.err
    found = cli("predict", "model=latest", f"text={text}") if (tmp_path / "outputs/latest/model").exists() else found
    for name, content in bombs(canary).items():
        for suffix in ("csv", "jsonl", "parquet", "jsonl.gz", "tsv"):
            (tmp_path / f"bomb.{suffix}").write_bytes(content)
            found = cli("finetune", "checkpoint=tiny", f"data.train={tmp_path / f'bomb.{suffix}'}")
            assert found.code == 2 and len(found.err.splitlines()) == 1, (name, suffix, found.err)
    report("canaries", slot="data files", tried=16, fired=0)
