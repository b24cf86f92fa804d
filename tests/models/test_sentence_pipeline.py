"""Sentence-transformers models as a beginning: their pooling, normalization and length are read, and what cannot be computed is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, OPTConfig, OPTModel

import metatrain
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import ModelOverrides, Overrides
from metatrain.errors import UserError
from metatrain.models import tiny
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import Classifier, save_classifier
from metatrain.models.sentence_pipeline import read_pipeline

KIND = "sentence_transformers.models."
TEXTS = ["a wonderful plot", "the brakes are unpredictable and the dealer shrugged", "cold"]


def pipeline(folder: Path, *modules: tuple[str, dict], transformer: str = "", **more: dict) -> str:
    """A folder as sentence-transformers writes it: modules as (name, settings), other files by their names."""
    words = tiny.tokenizer()
    torch.manual_seed(1)
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64)
    inner = folder / transformer
    BertModel(config).save_pretrained(inner)
    words.save_pretrained(inner)
    listed = [{"idx": 0, "name": "0", "path": transformer, "type": KIND + "Transformer"}]
    for number, (name, settings) in enumerate(modules, start=1):
        (folder / f"{number}_{name}").mkdir()
        (folder / f"{number}_{name}" / "config.json").write_text(json.dumps(settings))
        listed.append({"idx": number, "name": str(number), "path": f"{number}_{name}", "type": KIND + name})
    (folder / "modules.json").write_text(json.dumps(listed))
    (inner / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, "do_lower_case": False}))
    for name, settings in more.items():
        (folder / f"{name}.json").write_text(json.dumps(settings))
    return str(folder)


def opened(name: str, **overrides):
    said: list[str] = []
    learner = open_checkpoint(name, Overrides(model=ModelOverrides(**overrides)), torch.device("cpu"), torch.float32, said.append).learner
    return learner.model, said


CLS = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
NEW = {"embedding_dimension": 16, "pooling_mode": "lasttoken", "include_prompt": True}
MEAN = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}

TANH = {"in_features": 16, "out_features": 8, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


@pytest.mark.parametrize(
    ("modules", "transformer", "expected"),
    [
        ([("Pooling", CLS)], "", ("cls", False)),
        ([("Pooling", CLS), ("Normalize", {})], "0_BERT", ("cls", True)),
        ([("Pooling", MEAN), ("Dropout", {"dropout": 0.1}), ("Normalize", {})], "", ("mean", True)),
        ([("Pooling", NEW)], "0_Transformer", ("last", False)),
    ],
)
def test_a_checkpoint_is_pooled_as_its_modules_say(tmp_path, modules, transformer, expected):
    name = pipeline(tmp_path, *modules, transformer=transformer)
    model, said = opened(name)
    assert (model.pooling, model.normalize, model.max_length) == (*expected, 20)
    assert not any("warning" in line for line in said)
    library = pytest.importorskip("sentence_transformers").SentenceTransformer(name, device="cpu")
    with torch.no_grad():
        found = model(model.batch(model.tokens().encode(TEXTS)))
    np.testing.assert_allclose(found.numpy(), library.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("modules", "more", "why"),
    [
        ([("Pooling", {"pooling_mode": "max"})], {}, "with max pooling, which is not supported"),
        ([("Pooling", {**CLS, "pooling_mode_mean_tokens": True})], {}, "with cls and mean pooling"),
        (
            [("Pooling", MEAN), ("Dense", TANH)],
            {},
            "of the modules Transformer, Pooling, Dense",
        ),
        ([("WordWeights", {}), ("Pooling", MEAN)], {}, "of the modules Transformer, WordWeights, Pooling"),
        ([("Pooling", MEAN)], {"sentence_bert_config": {"max_seq_length": 20, "do_lower_case": True}}, "that converts every text to lower case"),
        (
            [("Pooling", {**MEAN, "include_prompt": False})],
            {"config_sentence_transformers": {"prompts": {"q": "query: "}, "default_prompt_name": "q"}},
            "puts 'query: ' before every text but not into the pooling",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_or_left_out_as_the_settings_say(tmp_path, modules, more, why):
    name = pipeline(tmp_path, *modules, **more)
    with pytest.raises(UserError, match=f"checkpoint={name} is a sentence-transformers pipeline .*{why}.*set model.pooling and model.normalize"):
        opened(name)
    model, said = opened(name, pooling="mean", normalize=False)
    assert (model.pooling, model.normalize) == ("mean", False)
    assert any(why in line and line.startswith("warning: ") for line in said)


def test_a_prompt_before_every_text_is_a_prefix(tmp_path):
    prompts = {"prompts": {"q": "the plot: "}, "default_prompt_name": "q"}
    name = pipeline(tmp_path / "one", ("Pooling", MEAN), config_sentence_transformers=prompts)
    model, said = opened(name)
    assert model.prefix == "the plot: " and not any("warning" in line for line in said)
    library = pytest.importorskip("sentence_transformers")
    with torch.no_grad():
        found = model(model.batch(model.tokens().encode(TEXTS)))
    np.testing.assert_allclose(found.numpy(), library.SentenceTransformer(name, device="cpu").encode(TEXTS), atol=1e-5)
    _, notes = load_encoder(ModelConfig(name=name, max_length=20), second_order=True)
    assert any("with 'the plot: ' before every text, and is used with" in note and note.endswith("model.prefix=''") for note in notes)
    # So has what is saved.
    assert save_classifier(tmp_path / "two", model, torch.eye(2, 16), torch.zeros(2), ["a", "b"]) == "sentence-transformers"
    again = library.SentenceTransformer(str(tmp_path / "two"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(again, found[:, :2].numpy(), atol=1e-5)
    np.testing.assert_allclose(Classifier(tmp_path / "two", torch.device("cpu")).scores(TEXTS).numpy(), again, atol=1e-5)


def test_a_classifier_of_transformers_has_no_prefix():
    with pytest.raises(UserError, match="model.prefix='query: ': .*set model.pooling=cls"):
        load_encoder(ModelConfig(name="tiny", pooling="first", prefix="query: "), second_order=True)


def test_classes_of_somebody_else_may_do_anything(tmp_path):
    name = pipeline(tmp_path, ("Pooling", MEAN))
    listed = (tmp_path / "modules.json").read_text()
    (tmp_path / "modules.json").write_text(listed.replace(f"{KIND}Pooling", "attentive.Pooling"))
    with pytest.raises(UserError, match="of the modules Transformer, attentive.Pooling, which are not supported"):
        opened(name)


def test_training_says_where_its_settings_differ_from_the_pipeline(tmp_path):
    name = pipeline(tmp_path, ("Pooling", CLS), ("Normalize", {}), transformer="0_Transformer")
    _, notes = load_encoder(ModelConfig(name=name, max_length=20), second_order=True)
    said = f"warning: {name} is a sentence-transformers pipeline with cls pooling, normalised, and is used with model.pooling=mean and model.normalize=false"
    assert said in notes
    _, notes = load_encoder(ModelConfig(name=name, pooling="first", normalize=True, max_length=20), second_order=True)
    assert not any("warning" in note for note in notes)


@pytest.mark.parametrize("listed", ["{", "[1]", '[{"path": ""}]', "3", '[{"type": "a.Transformer", "path": "../other"}]'])
def test_a_broken_list_of_modules_is_one_line(tmp_path, listed):
    name = pipeline(tmp_path, ("Pooling", CLS))
    (tmp_path / "modules.json").write_text(listed)
    with pytest.raises(UserError, match="modules.json"):
        opened(name)


def test_an_export_is_a_checkpoint_again(tmp_path):
    """Its encoder encodes as it did, and the head is left out."""
    for pooling, normalize in (("mean", True), ("first", False)):
        encoder, _ = load_encoder(ModelConfig(name="tiny", pooling=pooling, normalize=normalize, max_length=16), second_order=True)
        folder = tmp_path / pooling
        metatrain.models.export.save_finetuned(folder, encoder, {"head.weight": torch.zeros(2, 64), "head.bias": torch.zeros(2)}, ["a", "b"])
        again, said = opened(str(folder))
        assert (again.pooling, again.normalize, again.max_length) == (pooling, normalize, 16)
        texts = encoder.tokens().encode([*TEXTS, "word " * 40])
        with torch.no_grad():
            torch.testing.assert_close(again(again.batch(texts)), encoder(encoder.batch(texts)))


def test_directories_of_earlier_versions_predict_as_they_did(tmp_path):
    """They have the transformer beside the list of modules, and a tokenizer that knows no limit."""
    encoder, _ = load_encoder(ModelConfig(name="tiny", pooling="first", normalize=True, max_length=16), second_order=True)
    weight, bias = torch.randn(3, 64), torch.randn(3)
    save_classifier(tmp_path / "new", encoder, weight, bias, ["x", "y", "z"])
    old = tmp_path / "new"
    before = Classifier(old, torch.device("cpu")).scores([*TEXTS, "word " * 40])
    (old / "config.json").unlink()
    for file in (old / "0_Transformer").iterdir():
        file.rename(old / file.name)
    (old / "0_Transformer").rmdir()
    modules = json.loads((old / "modules.json").read_text())
    modules[0]["path"] = ""
    (old / "modules.json").write_text(json.dumps(modules))
    encoder.tokenizer.save_pretrained(old)
    found = Classifier(old, torch.device("cpu"))
    torch.testing.assert_close(found.scores([*TEXTS, "word " * 40]), before)
    assert found.labels == ["x", "y", "z"]
    assert read_pipeline(str(old)).labels == "3_Dense"


def test_the_first_token_of_a_causal_model_is_refused(tmp_path):
    words = tiny.tokenizer()
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
    OPTModel(OPTConfig(vocab_size=len(words), pad_token_id=0, **size)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    for pooling in ("first", "cls"):
        with pytest.raises(UserError, match=f"model.pooling={pooling}: in .* the first token attends to no other"):
            load_encoder(ModelConfig(name=str(tmp_path), pooling=pooling, max_length=16), second_order=False)
    load_encoder(ModelConfig(name=str(tmp_path), pooling="last", max_length=16), second_order=False)


def test_what_a_classifier_reads_is_as_long_as_it_was_finetuned(tmp_path):
    encoder, _ = load_encoder(ModelConfig(name="tiny", pooling="first", max_length=8), second_order=True)
    save_classifier(tmp_path, encoder, torch.randn(2, 64), torch.randn(2), ["a", "b"])
    one, other = Classifier(tmp_path, torch.device("cpu")).scores(["word " * 20 + "good", "word " * 20 + "bad"])
    assert torch.equal(one, other)


def test_the_first_token_of_a_plain_bert_goes_through_its_pooler():
    """Which is how its classifier reads, so that transformers can load what is finetuned from it."""
    model, _ = opened("tiny", pooling="first")
    assert model.uses_pooler and not model.normalize
    model, _ = opened("tiny", pooling="first", normalize=True)
    assert model.normalize and not model.uses_pooler
