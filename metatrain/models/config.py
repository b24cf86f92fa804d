"""What a user may set about the model."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class ModelConfig:
    """The language model to meta-train (config group `model`)."""

    name: str = MISSING  # minilm | tiny | a hub id | a directory with a Hugging Face model
    pooling: str = "mean"  # mean over tokens | first token (BERT: through its pooler) | last token
    normalize: bool = False  # encodings of length 1, so that their products are cosines
    max_length: int = 128  # longer texts are cut to this many tokens
    revision: str | None = None  # of a hub model
    trust_remote_code: bool = False  # runs code from the hub; needs `revision` pinned to a 40-digit commit
