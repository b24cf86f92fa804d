"""What others load: directories that give the same scores without metatrain."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    T5Config,
    T5Model,
)

from metatrain.errors import UserError
from metatrain.models import export
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import Classifier, read_recipe, save_classifier, save_meta_trained
from metatrain.models.generation import save_language_model
from metatrain.models.language_loading import load_language_model
from metatrain.models.tiny import tokenizer

TEXTS = ["a wonderful plot", "the brakes are unpredictable and the dealer shrugged", "cold"]
LABELS = ["angry", "happy", "neither"]

WITHOUT_METATRAIN = """
import json, sys
sys.modules["metatrain"] = None  # any import of it fails from here on
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer
texts, found = json.loads(sys.argv[1]), []
for folder, kind in json.loads(sys.argv[2]):
    if kind == "transformers":
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            scores = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.tolist()
        labels = [model.config.id2label[i] for i in range(len(scores[0]))]
    else:
        model = SentenceTransformer(folder, device="cpu")
        scores = model.encode(texts).tolist()
        labels = list(model[0].auto_model.config.id2label.values())
    found.append([labels, scores])
print(json.dumps(found))
"""
MODELS = [  # model, pooling, normalize, who loads it
    ("tiny", "first", False, "transformers"),
    ("tiny", "mean", False, "sentence-transformers"),
    ("tiny", "first", True, "sentence-transformers"),
    ("distilbert", "mean", True, "sentence-transformers"),
    ("gpt2", "last", False, "sentence-transformers"),
    ("t5", "mean", False, "sentence-transformers"),
]


def other_model(folder, architecture: str) -> str:
    """A small random model of another architecture, in a directory."""
    words = tokenizer()
    torch.manual_seed(0)
    size = len(words)
    model = {
        "distilbert": lambda: DistilBertModel(DistilBertConfig(vocab_size=size, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
        "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2)),
        "t5": lambda: T5Model(T5Config(vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)),
    }[architecture]()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """Finetuned directories of `MODELS`: for each its path, the expected scores, and (labels, scores) of a process without metatrain."""
    pytest.importorskip("sentence_transformers")
    torch.manual_seed(2)
    made = []
    for model, pooling, normalize, kind in MODELS:
        folder = tmp_path_factory.mktemp("finetuned")
        name = model if model == "tiny" else other_model(folder / "base", model)
        encoder, _ = load_encoder(ModelConfig(name=name, pooling=pooling, normalize=normalize, max_length=64), second_order=True)
        weight, bias = torch.randn(3, encoder.hidden_size), torch.randn(3)
        with torch.no_grad():
            ids = [np.array(encoder.tokenizer(text)["input_ids"]) for text in TEXTS]
            expected = encoder(encoder.batch(ids)) @ weight.T + bias
        assert save_classifier(folder / "model", encoder, weight, bias, LABELS) == kind
        made.append((folder / "model", expected))
    folders = [(str(folder), kind) for (folder, _), (*_, kind) in zip(made, MODELS)]
    command = [sys.executable, "-c", WITHOUT_METATRAIN, json.dumps(TEXTS), json.dumps(folders)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stderr
    return [(*each, *loaded) for each, loaded in zip(made, json.loads(done.stdout.splitlines()[-1]), strict=True)]


@pytest.mark.parametrize("number", range(len(MODELS)), ids=["-".join(map(str, each)) for each in MODELS])
def test_a_finetuned_directory_loads_without_metatrain(finetuned, number, monkeypatch):
    folder, expected, labels, scores = finetuned[number]
    assert labels == LABELS
    torch.testing.assert_close(torch.tensor(scores), expected, rtol=0, atol=1e-4)

    ours = Classifier(folder, torch.device("cpu"))
    assert ours.labels == LABELS
    torch.testing.assert_close(ours.scores(TEXTS).softmax(1), expected.softmax(1), rtol=0, atol=1e-5)
    monkeypatch.setattr(export, "_MAX_TOKENS", 1)  # each text is a batch
    torch.testing.assert_close(ours.scores(TEXTS).softmax(1), expected.softmax(1), rtol=0, atol=1e-5)
    assert ours.scores([]).shape == (0, len(LABELS))


def test_a_meta_trained_directory_carries_its_recipe(tmp_path):
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True)
    save_meta_trained(tmp_path, encoder, "encoder.", {"log_scale": torch.tensor(0.5)}, {"format": 1, "inner": {"steps": 3}})
    recipe, head = read_recipe(tmp_path)
    assert recipe == {"format": 1, "inner": {"steps": 3}}
    assert head["log_scale"] == 0.5
    again, _ = load_encoder(ModelConfig(name=str(tmp_path), max_length=64), second_order=True)
    for (name, value), (_, other) in zip(encoder.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(value, other), name


def test_a_meta_trained_directory_has_no_labels_of_its_base(tmp_path):
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True)
    encoder.backbone.config.id2label, encoder.backbone.config.problem_type = {0: "toxic", 1: "spam", 2: "ham"}, "multi_label_classification"
    save_meta_trained(tmp_path, encoder, "encoder.", {}, {"format": 1})
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"} and config.problem_type is None


def test_saving_a_classifier_leaves_the_encoder_as_it_was(tmp_path):
    encoder, _ = load_encoder(ModelConfig(name="tiny", pooling="first"), second_order=True)
    ids = encoder.tokens().encode(TEXTS)
    before = encoder(encoder.batch(ids))
    save_classifier(tmp_path, encoder, torch.zeros(2, 64), torch.zeros(2), ["a", "b"])
    torch.testing.assert_close(encoder(encoder.batch(ids)), before)


def test_a_language_model_is_given_no_token_types_elsewhere(tmp_path):
    torch.manual_seed(0)
    words = BertTokenizerFast(vocab=tokenizer().get_vocab(), eos_token="[SEP]")
    config = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    words.save_pretrained(tmp_path / "base")
    settings = ModelConfig(name=str(tmp_path / "base"), max_length=16, max_target_length=4)
    model, _ = load_language_model(settings, second_order=False, dtype=torch.float32, texts=())
    save_language_model(tmp_path / "model", model, None)
    assert set(AutoTokenizer.from_pretrained(tmp_path / "model")("a plot", "the dealer")) == {"input_ids", "attention_mask"}


def test_other_directories_have_no_recipe_and_broken_ones_say_so(tmp_path):
    assert read_recipe(tmp_path) is None
    for broken in ("{", "[]"):
        (tmp_path / "adaptation.json").write_text(broken)
        with pytest.raises(UserError, match="adaptation.json cannot be read"):
            read_recipe(tmp_path)
    (tmp_path / "adaptation.json").write_text("{}")
    (tmp_path / "adaptation.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="adaptation.safetensors cannot be read"):
        read_recipe(tmp_path)


def test_a_truncated_model_is_one_line(tmp_path):
    encoder, _ = load_encoder(ModelConfig(name="tiny", pooling="first"), second_order=True)
    save_classifier(tmp_path, encoder, torch.zeros(2, 64), torch.zeros(2), ["a", "b"])
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        Classifier(tmp_path, torch.device("cpu"))
