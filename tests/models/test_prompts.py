"""Prompts are what tokenizing them whole gives, and scores of labels are those of their formulas."""

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from metatrain.errors import UserError
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.generation import TextGenerator, save_language_model
from metatrain.models.language_model import LanguageModel
from metatrain.models.prompts import Prompt, check_prompt
from metatrain.models.reading import kept_examples, reading_of
from metatrain.models.scoring import CONTENT_FREE, label_scores

TEXTS = ["a dull film", "the brakes are bad, and so is the rest", "cold soup"]
LABELS = ["no_way", "yes"]
CHAT = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
Helpful<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
LABELLED = PromptConfig(instruction="Choose: {labels}.", text="Text: {text}", label="Label: {label}", pair="\nAnd: ", end="\n\n")
OF_CHAT = PromptConfig(chat=True, instruction="Choose: {labels}.", separator="", pair="\n\nAnd: ")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like that of SmolLM2: a word includes the space before it, and a newline is a token of its own."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    raw.decoder = decoders.ByteLevel()
    special, alphabet = ["<|end|>", "<|im_start|>", "<|im_end|>"], sorted(pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator([*TEXTS, *LABELS], trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>")
    made.chat_template = CHAT
    return made


def language_model(tokenizer: PreTrainedTokenizerFast, prompt: PromptConfig) -> LanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    model = LlamaForCausalLM(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    made = LanguageModel(model, tokenizer, ModelConfig(name="llama", max_length=32, max_target_length=8), prompt)
    made.backbone.generation_config.max_length = None
    return made


def prompt_of(model: LanguageModel, examples: bool, pair: bool = False) -> str:
    """Return the prompt of the last text, after the others as examples."""
    tokens = model.tokens()
    texts, targets = tokens.encode([text + ("\ufdd1other" if pair else "") for text in TEXTS]), tokens.encode_targets.names(LABELS)
    shown = list(zip(texts[:2], targets)) if examples else []
    return model.tokenizer.decode(reading_of(model, LABELS, shown, [0, 1][: len(shown)], 20).of(model, texts[2:])[0])


def test_a_labelled_prompt_has_its_words_and_the_tokens_of_the_whole(tokenizer):
    model = language_model(tokenizer, LABELLED)
    assert prompt_of(model, True) == (
        "Choose: no way, yes.\n\nText: a dull film\nLabel: no way\n\nText: the brakes are bad, and so is the rest\nLabel: yes\n\nText: cold soup\nLabel:"
    )
    assert prompt_of(model, False, pair=True) == "Choose: no way, yes.\n\nText: cold soup\nAnd: other\nLabel:"
    tokens = model.tokens()
    read = reading_of(model, LABELS, [], [], 20).of(model, tokens.encode(["cold soup"]))[0]
    target = tokens.encode_targets.names(["yes"])[0]
    whole = tokenizer("Choose: no way, yes.\n\nText: cold soup\nLabel: yes\n")["input_ids"]
    assert [*read, *target] == whole


def test_a_chat_has_the_tokens_of_the_template(tokenizer):
    model = language_model(tokenizer, OF_CHAT)
    turns = [{"role": "system", "content": "Choose: no way, yes."}]
    for text, label in zip(TEXTS, ["no way", "yes"]):
        turns += [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
    turns.append({"role": "user", "content": TEXTS[2]})
    tokens = model.tokens()
    texts, targets = tokens.encode(TEXTS), tokens.encode_targets.names(LABELS)
    found = reading_of(model, LABELS, list(zip(texts, targets)), [0, 1], 20).of(model, texts[2:])[0]
    assert found.tolist() == tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert targets[1].tolist() == tokenizer("yes<|im_end|>")["input_ids"]
    # Lines with {labels} are left out where there are none.
    assert "Choose" not in tokenizer.decode(reading_of(model, (), [], [], 20).opening)


def test_a_template_without_system_messages_puts_the_instruction_before_the_first_text(tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    assert "<|im_start|>user\nChoose: no way, yes.\n\na dull film<|im_end|>" in prompt_of(language_model(other, OF_CHAT), True)


def test_the_plain_prompt_is_that_of_no_prompt(tokenizer):
    assert language_model(tokenizer, PromptConfig()).prompt is None
    assert language_model(tokenizer, PromptConfig(scoring="pmi", words={"a": "b"})).prompt is None
    assert language_model(tokenizer, PromptConfig(scoring="channel")).prompt is not None


@pytest.mark.parametrize("prompt", [PromptConfig(), LABELLED, OF_CHAT], ids=["plain", "labelled", "chat"])
@pytest.mark.parametrize("rule", ["sum", "mean", "pmi", "calibrated", "channel"])
def test_scores_are_those_of_their_formulas(tokenizer, prompt, rule):
    from dataclasses import replace

    if rule == "channel" and prompt.chat:
        with pytest.raises(UserError, match="a chat template begins with the text"):
            language_model(tokenizer, replace(prompt, scoring=rule))
        return
    model = language_model(tokenizer, replace(prompt, scoring=rule))
    tokens = model.tokens()
    texts, choices = tokens.encode(TEXTS), tokens.encode_targets.names(LABELS)
    reading = reading_of(model, LABELS, [], [], 20)
    found = label_scores(model, reading, texts, choices, 8192)

    def log_likelihood(text: np.ndarray, target: np.ndarray) -> float:
        with torch.no_grad():
            return -float(model(model.batch(reading.of(model, [text]), [target])).loss)

    def bare(text: str) -> np.ndarray:
        return np.array(tokenizer(text)["input_ids"] if text else [], dtype=np.int64)

    for row, text in enumerate(texts):
        if rule == "channel":
            expected = [log_likelihood(choice[:-1], np.append(text, model.prompt.stop)) for choice in choices]
        else:
            expected = [log_likelihood(text, choice) for choice in choices]
        if rule == "mean":
            expected = [score / len(choice) for score, choice in zip(expected, choices)]
        elif rule == "pmi":
            expected = [score - log_likelihood(bare(""), choice) for score, choice in zip(expected, choices)]
        elif rule == "calibrated":
            lead = " " if prompt.text.startswith("Text: ") else ""
            free = [torch.tensor([log_likelihood(bare(lead + each if each else ""), choice) for choice in choices]).softmax(0) for each in CONTENT_FREE]
            prior = torch.stack(free).mean(0)
            ratio = torch.tensor(expected).softmax(0) / prior
            assert torch.allclose(found[row].softmax(0).float(), ratio / ratio.sum(), atol=1e-5)
            continue
        assert found[row].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prompt", [LABELLED, OF_CHAT, PromptConfig(scoring="channel")], ids=["labelled", "chat", "channel"])
def test_a_finetuned_model_scores_by_the_prompt_it_was_written_with(tokenizer, prompt, tmp_path):
    model = language_model(tokenizer, prompt)
    model.backbone.float()
    tokens = model.tokens()
    texts, choices = tokens.encode(TEXTS), tokens.encode_targets.names(LABELS)
    examples = [(choices[0][:-1], texts[0])] if prompt.scoring == "channel" else [(texts[0], choices[0])]
    reading = reading_of(model, LABELS, examples, [0], 20)
    expected = label_scores(model, reading, texts, choices, 8192).softmax(1)
    save_language_model(tmp_path, model, LABELS, reading)
    found = TextGenerator(tmp_path, torch.device("cpu")).scores(TEXTS)
    assert torch.allclose(found.softmax(1), expected, atol=1e-5)
    assert math.isclose(float(found.softmax(1).sum()), len(TEXTS), rel_tol=1e-5)


def test_words_stand_for_labels(tokenizer):
    model = language_model(tokenizer, PromptConfig(words={"no_way": "bad"}))
    assert [tokenizer.decode(ids[:-1]) for ids in model.tokens().encode_targets.names(LABELS)] == ["bad", "yes"]


def test_what_is_left_out_is_balanced():
    assert kept_examples([10] * 6, [0, 0, 0, 0, 1, 1], 40) == [0, 1, 4, 5]
    assert kept_examples([10] * 6, [0, 0, 0, 0, 1, 1], 20) == [0, 4]
    assert kept_examples([10, 10], [0, 1], None) == [0, 1] and kept_examples([10, 10], [0, 1], 5) == []


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"scoring": "best"}, "prompt.scoring=best is unknown; choose one of sum, mean"),
        ({"text": "Text:"}, "must have {text} once"),
        ({"label": "{label} {label}"}, "must have {label} once"),
        ({"separator": ""}, "nothing separates a text from its label"),
    ],
)
def test_prompts_that_cannot_be(settings, said):
    with pytest.raises(UserError) as error:
        check_prompt(PromptConfig(**settings))
    assert said in str(error.value)


def test_a_chat_needs_a_template(tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = None
    with pytest.raises(UserError, match="has no chat template; choose prompt=labelled"):
        Prompt(OF_CHAT, other, decoder_only=True)
