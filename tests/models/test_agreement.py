"""A finetuned model gives the same probabilities whoever computes them: `metatrain predict`, Python, and transformers or
sentence-transformers on the exported directory, over architectures, poolings, pairs, lengths and odd texts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_jsonl
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5EncoderModel,
    pipeline,
)

from metatrain.api import FewShotModel, Task
from metatrain.checkpoints.building import make_learner
from metatrain.checkpoints.recipe import Recipe, SavedRecipe
from metatrain.meta.config import AlgorithmConfig
from metatrain.models import scratch, tiny
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.models.export import save_finetuned
from metatrain.tasks.config import EpisodeConfig

LENGTH = 12  # tokens; some texts are longer
LABELS = ["angry", "happy", "neither"]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
_OWN_SIZES = {
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
}
TEXTS = [
    *("a wonderful plot", "cold", "the brakes are unpredictable and the dealer shrugged " * 3, "Ünïcode, naïve café", "\U0001f600 \U0001f469\u200d\U0001f4bb"),
    *("\ufffc", "a\ufffcb", "good\x1efilm", "b\x1d/etc/passwd", "a\x00b", "tab\tand\nline", "line\u2028end", "हिन्दी की", "مرحبا", "ﬁne\u200b"),
    *("[MASK] [SEP] </s> <pad> <|padding|>", "x" * 300, "...", "0", "\ufeffbom", "\ue000"),
]


def bytes_alone() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes without a single special token."""
    made = scratch.train_tokenizer(TEXTS, 300, ends=False).backend_tokenizer
    state = json.loads(made.to_str())
    state["added_tokens"] = []
    state["model"]["unk_token"] = None
    return PreTrainedTokenizerFast(tokenizer_object=type(made).from_str(json.dumps(state)))


def with_types() -> PreTrainedTokenizerBase:
    return BertTokenizerFast(vocab=tiny.tokenizer().get_vocab())


def with_types_on_the_left() -> PreTrainedTokenizerBase:
    made = scratch.train_tokenizer(TEXTS, 320, ends=True)
    made.padding_side = "left"
    made.model_input_names = made.init_kwargs["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return made


def byte_pieces() -> PreTrainedTokenizerBase:
    return scratch.train_tokenizer(TEXTS, 320, ends=True)


@dataclass(frozen=True)
class Case:
    """A model, and how it makes one vector of a text."""

    architecture: str
    pooling: str
    normalize: bool = False
    tokenizer: Any = tiny.tokenizer
    pairs: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join((self.architecture, self.pooling, *(["normalized"] if self.normalize else []), *(["pairs"] if self.pairs else [])))


ALIKE = ("roberta", "electra", "gpt_neox", "llama")  # others read texts as these do; they run nightly
CASES = [
    Case("bert", "first", tokenizer=with_types, settings={"problem_type": "multi_label_classification"}),
    Case("bert", "first", tokenizer=with_types, pairs=True),
    Case("bert", "cls"),
    Case("bert", "mean", normalize=True, tokenizer=with_types, pairs=True),
    Case("distilbert", "mean"),
    Case("roberta", "first", settings={"pad_token_id": 0, "max_position_embeddings": 66}),
    Case("electra", "last", normalize=True),
    Case("mpnet", "mean", settings={"pad_token_id": 0, "max_position_embeddings": 66}),
    Case("albert", "first", tokenizer=with_types, pairs=True, settings={"embedding_size": 16}),
    Case("gpt2", "last", tokenizer=with_types_on_the_left, pairs=True),
    Case("gpt_neox", "mean", tokenizer=bytes_alone),
    Case("llama", "last", tokenizer=byte_pieces, settings={"num_key_value_heads": 1}),
    Case("t5", "mean", tokenizer=byte_pieces),
]
SLOW = [
    Case("deberta-v2", "first", tokenizer=with_types, pairs=True),
    Case("xlnet", "mean", tokenizer=with_types_on_the_left, pairs=True),
    Case("opt", "last", tokenizer=byte_pieces, settings={"word_embed_proj_dim": 16, "ffn_dim": 32}),
    Case("modernbert", "cls", normalize=True),
    Case("bloom", "mean", tokenizer=byte_pieces),
    Case("qwen2", "last", normalize=True, tokenizer=with_types_on_the_left, settings={"num_key_value_heads": 2}),
    Case("xlm-roberta", "mean", pairs=True, settings={"pad_token_id": 0, "max_position_embeddings": 66}),
    Case("camembert", "cls", settings={"pad_token_id": 0, "max_position_embeddings": 66}),
    Case("bert", "last", settings={"is_decoder": True}),
    Case("bert", "first", tokenizer=bytes_alone),
]


def saved(folder: Path, case: Case) -> str:
    """The base model of a case, with random weights."""
    torch.manual_seed(3)
    words = case.tokenizer()
    size = _OWN_SIZES.get(case.architecture, SIZE)
    special = {"pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    config = AutoConfig.for_model(case.architecture, **{**size, "vocab_size": len(words), **special, **case.settings})
    model = T5EncoderModel(config) if case.architecture == "t5" else AutoModel.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)  # so that texts differ
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def encodings(encoder: Encoder, texts: list[Any]) -> torch.Tensor:
    columns = zip(*texts) if isinstance(texts[0], tuple) else [texts]
    ids = encoder.tokenizer(*map(list, columns), truncation=True, max_length=LENGTH)["input_ids"]
    return encoder(encoder.batch([np.array(each) for each in ids]))


def agree(tmp_path: Path, cli: Any, case: Case) -> None:
    texts = [(text, second) for text, second in zip(TEXTS, reversed(TEXTS))] if case.pairs else TEXTS
    config = ModelConfig(name=saved(tmp_path / "base", case), pooling=case.pooling, normalize=case.normalize, max_length=LENGTH)
    encoder, _ = load_encoder(config, second_order=True)
    features = encodings(encoder, texts)
    weight = torch.randn(len(LABELS), encoder.hidden_size) / features.std(0)
    head = {"head.weight": weight / 2, "head.bias": -(features @ weight.T).mean(0) / 2}

    learner = make_learner(encoder, Recipe(config, AlgorithmConfig(), SavedRecipe().inner, EpisodeConfig(), 0))
    expected = Task(FewShotModel(learner), LABELS, head, None).probabilities(texts)
    assert np.ptp(expected, axis=0).max() > 0.5  # texts differ

    columns = {"text": "text", **({"pair": "pair"} if case.pairs else {})}
    kind = save_finetuned(tmp_path / "model", encoder, head, LABELS, columns=columns)
    rows = [dict(zip(("text", "pair"), text)) for text in texts] if case.pairs else [{"text": text} for text in texts]
    done = cli("predict", f"model={tmp_path / 'model'}", f"data={write_jsonl(tmp_path / 'texts.jsonl', rows)}", "hardware.device=cpu")
    assert done.code == 0, done.err
    predicted = [json.loads(line) for line in done.out.split("\n") if line]
    assert [row["label"] for row in predicted] == [LABELS[row.argmax()] for row in expected]
    np.testing.assert_allclose([row["probability"] for row in predicted], expected.max(1), atol=2e-5)

    elsewhere = with_transformers if kind == "transformers" else with_sentence_transformers
    np.testing.assert_allclose(elsewhere(tmp_path / "model", texts), expected, atol=2e-5)


def with_transformers(folder: Path, texts: list[Any]) -> np.ndarray:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    columns = [list(column) for column in zip(*texts)] if isinstance(texts[0], tuple) else [texts]
    with torch.no_grad():
        found = model(**tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")).logits.softmax(1).numpy()
    classify = pipeline("text-classification", str(folder), top_k=None)
    given = [dict(zip(("text", "text_pair"), text)) for text in texts] if isinstance(texts[0], tuple) else texts
    for row, scores in zip(found, classify(given, truncation=True)):
        assert [{each["label"]: each["score"] for each in scores}[label] for label in LABELS] == pytest.approx(row.tolist(), abs=2e-5)
    return found


def with_sentence_transformers(folder: Path, texts: list[Any]) -> np.ndarray:
    found = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    assert list(found[0].auto_model.config.id2label.values()) == LABELS
    with pytest.raises((OSError, ValueError)):
        pipeline("text-classification", str(folder))  # which would make up a classifier
    return torch.tensor(found.encode(texts)).softmax(1).numpy()


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.nightly) if case.architecture in ALIKE else case for case in CASES], ids=str)
def test_everyone_gives_the_same_probabilities(tmp_path, cli, case):
    agree(tmp_path, cli, case)


@pytest.mark.nightly
@pytest.mark.parametrize("case", SLOW, ids=str)
def test_everyone_gives_the_same_probabilities_with_more_architectures(tmp_path, cli, case):
    agree(tmp_path, cli, case)
