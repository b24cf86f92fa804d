"""Settings of the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class ScratchConfig:
    """Size of a model with random weights; its tokenizer is trained on the training tasks (config node `model.scratch`)."""

    layers: int = 2  # number of layers, of the encoder and of the decoder
    hidden: int = 128  # hidden size; a multiple of model.scratch.heads
    heads: int = 4  # number of attention heads
    vocabulary: int = 4000  # maximum number of subword tokens in the vocabulary


@dataclass
class ModelConfig:
    """The model to meta-train (config group `model`)."""

    name: str = MISSING  # minilm | tiny | scratch:t5 | scratch:gpt2 | a hub id | a directory with a Hugging Face model
    pooling: str = "mean"  # mean over tokens | first token (BERT: through its pooler) | cls (first token, never through a pooler) | last token
    normalize: bool = False  # scale encodings to length 1, so that dot products are cosine similarities
    max_length: int = 128  # truncate texts to this number of tokens
    max_target_length: int = 48  # truncate target texts and generated texts to this number of tokens; language models only
    scratch: ScratchConfig = field(default_factory=ScratchConfig)  # size of a model with random weights; with model.name=scratch:t5 or scratch:gpt2
    revision: str | None = None  # branch, tag or commit of a hub model; null: its default branch
    tokenizer: str | None = None  # directory of a tokenizer, with model.name=scratch:*; null: train one on the training tasks
    trust_remote_code: bool = False  # run Python code from the model's hub repository; needs model.revision set to a full 40-digit commit
