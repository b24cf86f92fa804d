"""Prompts as a language model reads them, for `metatrain tasks show=N`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metatrain.config.schema import TasksCommandConfig
    from metatrain.tasks.task import TaskDistribution
    from metatrain.tracking.console import Display

_NUMBERED = "\n--- prompt {number} of task '{task}': {tokens} tokens, {examples} examples ---"


def show_prompts(config: TasksCommandConfig, tasks: TaskDistribution, display: Display) -> None:
    """Print the prompts of the first query of `show` episodes, one task after the other, and the targets.

    Raises:
        UserError: `show` is below 1, the model generates no text, or the tasks have images or too few texts.
    """
    import torch

    from metatrain.errors import UserError
    from metatrain.meta.config import AlgorithmConfig
    from metatrain.meta.functional import FunctionalLanguageModel
    from metatrain.models.language_loading import load_language_model
    from metatrain.tasks.encoded_episode import encode_episode, targets_of
    from metatrain.tasks.episodes import check_tasks, task_episode

    if config.show is None or config.show < 1:
        raise UserError(f"show={config.show} is the number of prompts to print; set it to 1 or more")
    found = tasks.meta_test or tasks.meta_train
    model, notes = load_language_model(config.model, False, torch.float32, tasks.training_texts(), decoder_only=True, prompt=config.prompt)
    display.say(notes[0])
    functional = FunctionalLanguageModel(model, AlgorithmConfig(head="in_context" if model.decoder_only else "lm", adapt="head"))
    tokens = model.tokens()
    tokens.check(found)
    check_tasks(found, config.episode, "meta_test")
    for number in range(config.show):
        task = found[number % len(found)]
        episode = encode_episode(task_episode(task, config.episode, config.seed, "meta_test", number), tokens)
        read, reading = functional.read(episode), functional.reading(episode)
        prompt = reading.of(model, read.query[:1])[0]
        examples = len(episode.support) - reading.left_out if functional.reads_support else 0
        display.say(_NUMBERED.format(number=number + 1, task=task.name, tokens=len(prompt) + len(model.separator), examples=examples))
        display.say(str(model.tokenizer.decode([*prompt, *model.separator])))
        display.say(f"--- target: {model.tokenizer.decode(targets_of(read).query[0])!r} ---")
        if reading.left_out:
            display.say(f"{reading.left_out} of {len(episode.support)} examples are left out, balanced over the classes: the model has no positions for them")
