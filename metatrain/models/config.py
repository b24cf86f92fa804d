"""Settings of the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from metatrain.conditions import Condition, Place, Unread, needs, when
from metatrain.paths import local_path

ENCODERS = ("minilm", "mpnet")  # names of encoders that metatrain finds itself
BUILT_IN = (*ENCODERS, "smollm2", "tiny")  # names of models that are never interpreted as a path or a hub id


def _does_not_generate(place: Place) -> Unread | None:
    if place.facts("algorithm.head").is_language_model:
        return None
    return Unread(f"{place.given('algorithm.head')} generates no text", "choose algorithm.head=lm")


def _does_not_encode(place: Place) -> Unread | None:
    if not place.facts("algorithm.head").is_language_model:
        return None
    return Unread(f"{place.given('algorithm.head')} is a language model without encodings", "choose another algorithm.head")


def _reads_no_prompt(place: Place) -> Unread | None:
    facts = place.facts("algorithm.head")
    if facts.is_language_model or facts.reads_word_embeddings:
        return None
    return Unread(f"{place.given('algorithm.head')} reads no prompt", "choose algorithm.head=lm, or algorithm=cloze")


def _does_not_pool(place: Place) -> Unread | None:
    if not place.facts("algorithm.head").reads_word_embeddings:
        return None
    return Unread(f"{place.given('algorithm.head')} reads the hidden state at the mask", "choose another algorithm.head")


def _is_trained(place: Place) -> Unread | None:
    return Unread("meta-training cuts long texts", "set it in metatrain finetune or evaluate") if place.trains else None


def _is_not_of_hub(place: Place) -> Unread | None:
    name = str(place.value("model.name"))
    if name != "tiny" and not name.startswith("scratch:") and not local_path(name).is_dir():
        return None
    return Unread(f"{place.given('model.name')} is not loaded from the hub", "give the name of a hub model")


SCRATCH = needs("model.name", lambda name: str(name).startswith("scratch:"), "is scratch:*", "choose model=scratch_t5 or model=scratch_gpt2")
FOUND = needs("model.name", lambda name: name == "smollm2", "is smollm2", "choose model=smollm2, or set model.name=DIRECTORY")
GENERATES = Condition(_does_not_generate, lambda place: "algorithm.head is a language model")
PROMPTED = Condition(_reads_no_prompt, lambda place: "algorithm.head is a language model or mlm")
POOLS = Condition(_does_not_pool, lambda place: "")
ENCODES = Condition(_does_not_encode, lambda place: "algorithm.head is not a language model")
USED = Condition(_is_trained, lambda place: "the command does not meta-train")
OF_HUB = Condition(_is_not_of_hub, lambda place: "model.name is a hub model")


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

    name: str = MISSING  # minilm | mpnet | smollm2 | tiny | scratch:t5 | scratch:gpt2 | a hub id | a directory with a Hugging Face model
    # Directory of the model that name=smollm2 stands for; null: the user's cache, where scripts/data/smollm2.py writes it, else the hub's cache, else the
    # hub. Other models: model.name=DIRECTORY.
    path: str | None = field(default=None, metadata=when(FOUND))
    # mean over tokens | first token (BERT: through its pooler) | cls (first token, never through a pooler) | last token.
    pooling: str = field(default="mean", metadata=when(ENCODES, POOLS))
    normalize: bool = field(default=False, metadata=when(ENCODES, POOLS))  # scale encodings to length 1, so that dot products are cosine similarities
    # Text put before every text, as the model was trained with: "query: " for E5. Of a text pair, before the first text.
    prefix: str = field(default="", metadata=when(ENCODES, POOLS))
    max_length: int = 128  # truncate texts to this number of tokens, those of the prefix included
    # Texts of more than model.max_length tokens: cut | windows (overlapping windows, whose encodings are averaged; up to 8,192 tokens of a text; in
    # finetune and evaluate, with an encoder that stays as it is).
    long_texts: str = field(default="cut", metadata=when(ENCODES, POOLS, USED))
    max_target_length: int = field(default=48, metadata=when(GENERATES))  # truncate target texts and generated texts to this number of tokens
    scratch: ScratchConfig = field(default_factory=ScratchConfig, metadata=when(SCRATCH))  # size of a model with random weights
    revision: str | None = field(default=None, metadata=when(OF_HUB))  # branch, tag or commit of a hub model; null: its default branch
    tokenizer: str | None = field(default=None, metadata=when(SCRATCH))  # directory of a tokenizer; null: train one on the training tasks
    trust_remote_code: bool = False  # run Python code from the model's hub repository; needs model.revision set to a full 40-digit commit


@dataclass
class PromptConfig:
    """Wording of the tasks that a language model or a masked language model reads, and scores of label names (config group `prompt`)."""

    # Write each text as a turn of the user and each label or target as a turn of the assistant, in the model's own chat template.
    chat: bool = field(default=False, metadata=when(GENERATES))
    # Text before the first example or query, in a chat the system message; {labels}: the label names of the task; "": none. A line with {labels} is left
    # out in text-to-text tasks.
    instruction: str = field(default="", metadata=when(GENERATES))
    # Wording of a text, with {text} where the text is; may have {labels}, as prompt.instruction. With algorithm.head=mlm, {mask} is where the label word is
    # predicted, and {text_pair}, which may be missing, where the second text of a pair is.
    text: str = "{text}"
    pair: str = field(default="", metadata=when(GENERATES))  # what stands between the two texts of a pair; "": what the tokenizer puts there
    label: str = field(default="{label}", metadata=when(GENERATES))  # wording of a label or target, with {label} where it is
    separator: str = field(default="\n", metadata=when(GENERATES))  # what stands between a text and its label; a chat has turns instead
    # What stands after a label, before the next example; "": the tokenizer's end-of-text token. A chat has its own.
    end: str = field(default="", metadata=when(GENERATES))
    words: dict[str, str] = field(default_factory=dict)  # words for labels, {LABEL: WORDS}; other labels are read as they are, with spaces for underscores
    # Score of a label y for a text x: sum (log p(y|x)) | mean (per token of y) | pmi (log p(y|x) - log p(y), y after the prompt without a text; Holtzman
    # et al. 2021) | calibrated (probabilities divided by those after texts without content; contextual calibration, Zhao et al. 2021) | channel
    # (log p(x|y): label first, then text; Min et al. 2022).
    scoring: str = field(default="sum", metadata=when(GENERATES))
