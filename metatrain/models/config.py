"""What a user may set about the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class ScratchConfig:
    """A language model with random weights, and a vocabulary of pieces of the training tasks' words (config node `model.scratch`)."""

    layers: int = 2  # of the encoder and of the decoder
    hidden: int = 128  # width of the encodings
    heads: int = 4  # of the attention; `hidden` is a multiple
    vocabulary: int = 4000  # at most


@dataclass
class ModelConfig:
    """The language model to meta-train (config group `model`)."""

    name: str = MISSING  # minilm | tiny | scratch:t5 | scratch:gpt2 | a hub id | a directory with a Hugging Face model
    pooling: str = "mean"  # mean over tokens | first token (BERT: through its pooler) | cls (first token, never through a pooler) | last token
    normalize: bool = False  # encodings of length 1, so that their products are cosines
    max_length: int = 128  # longer texts are cut to this many tokens
    max_target_length: int = 48  # language models: what they write, and what they learn to write, is cut to this many tokens
    scratch: ScratchConfig = field(default_factory=ScratchConfig)  # name=scratch:t5 or scratch:gpt2: its size
    revision: str | None = None  # of a hub model
    tokenizer: str | None = None  # scratch:*: a directory with its tokenizer; null: it is made from the training tasks
    trust_remote_code: bool = False  # runs code from the hub; needs `revision` pinned to a 40-digit commit
