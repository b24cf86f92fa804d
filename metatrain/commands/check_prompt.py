"""Checks of a prompt of a plug-in, for `metatrain doctor plugin=NAME`, on a small language model or masked language model with random weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metatrain.meta.learner import Learner
    from metatrain.models.language_model import LanguageModel
    from metatrain.run.diagnosis import Finding

TOKENIZER = "tokenizer"  # folder, inside that of the checks, of the tokenizer with a chat template
# ChatML, the turns of many instruction-tuned models.
_CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SCRATCH = ("model.name=scratch:gpt2", "model.scratch.layers=1", "model.scratch.hidden=32")
_FIRST, _SECOND, _LABELS = ("a dull film", "a fast car", "cold soup"), ("an old book", "a slow train", "warm bread"), ("bad", "good")
_PLACE = re.compile(r"\{\w+\}")
_REMEDY = "use only {labels} in instruction and text, {text} in text, {label} in label, and {mask} and {text_pair} for a masked language model"


def settings(name: str) -> list[str]:
    """Return the settings of a small run with a prompt: of a masked language model if it has {mask}, else of one that reads examples in context."""
    from metatrain.config.plugin_prompts import values_of

    values = values_of(name)
    if "{mask}" in values["text"]:
        words = {"positive": "great", "negative": "awful"} | values.get("words", {})
        return ["algorithm=cloze", f"prompt={name}", *(f"+prompt.words.{label}={words[label]}" for label in words if label not in values.get("words", {}))]
    return ["algorithm=in_context", f"prompt={name}", *(_SCRATCH if values["chat"] else ())]


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer with a chat template."""
    from metatrain.models.scratch import train_tokenizer

    tokenizer = train_tokenizer((*_FIRST, *_SECOND, *_LABELS), 400, ends=False)
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder)


def wording(learner: Learner) -> Finding:
    """Check that what the model reads has the texts, and of examples the labels, in their order, and no placeholder."""
    from metatrain.run.diagnosis import Finding

    sizes = {}
    for what, read, expected in _read(learner):
        if lost := [each for each in expected if each not in read]:
            return Finding("wording", False, f"{what}: {lost[0]!r} is missing in {read!r}", _REMEDY)
        if places := _PLACE.findall(read):
            return Finding("wording", False, f"{what}: {places[0]} stands for nothing in {read!r}", _REMEDY)
        if not re.search(".*".join(map(re.escape, expected)), read, re.DOTALL):
            return Finding("wording", False, f"{what}: texts and labels are not in their order in {read!r}", _REMEDY)
        sizes[what] = len(read)
    return Finding("wording", True, ", ".join(f"{what} {size} characters" for what, size in sizes.items()))


def _read(learner: Learner) -> Iterator[tuple[str, str, list[str]]]:
    """Yield what is read, its text, and the texts and labels that must be in it."""
    from metatrain.models.language_model import LanguageModel
    from metatrain.tasks.texts import PAIR

    model = learner.model
    pairs = [f"{first}{PAIR}{second}" for first, second in zip(_FIRST, _SECOND)]
    if isinstance(model, LanguageModel):
        for names in (_LABELS, ()):
            if names or not (model.prompt is not None and model.prompt.is_channel):  # the channel reads no text-to-text tasks
                said = "with label names" if names else "without"
                yield f"texts {said}", *_of_language_model(model, names, _FIRST)
                yield f"pairs {said}", *_of_language_model(model, names, pairs)
        return
    tokens = model.tokens()
    if "{text_pair}" not in tokens.encode_texts.template:
        yield "texts", str(tokens.tokenizer.decode(tokens.encode(_FIRST[:1])[0])), [_FIRST[0], str(tokens.tokenizer.mask_token)]
    yield "pairs", str(tokens.tokenizer.decode(tokens.encode(pairs[:1])[0])), [_FIRST[0], _SECOND[0]]


def _of_language_model(model: LanguageModel, names: tuple[str, ...], texts: list[str] | tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the prompt of the last text after two examples, and what must be in it, in this order."""
    from metatrain.models.reading import reading_of
    from metatrain.models.scoring import with_stop
    from metatrain.tasks.texts import PAIR

    tokens = model.tokens()
    assert tokens.encode_targets is not None  # of a language model
    encoded, targets = tokens.encode(texts), tokens.encode_targets.names(_LABELS)
    words = [model.prompt_config.words.get(label, label) for label in _LABELS]
    parts = [text.split(PAIR) for text in texts]
    if model.prompt is not None and model.prompt.is_channel:
        labels = [target[:-1] for target in targets]
        examples, last, expected = (
            list(zip(labels, [with_stop(model, text) for text in encoded])),
            labels[0],
            [words[0], *parts[0], words[1], *parts[1], words[0]],
        )
    else:
        examples, last, expected = list(zip(encoded, targets)), encoded[2], [*parts[0], words[0], *parts[1], words[1], *parts[2]]
    reading = reading_of(model, names, examples, [0, 1], max(map(len, encoded)))
    return str(model.tokenizer.decode([*reading.of(model, [last])[0]])), expected
