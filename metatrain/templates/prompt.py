"""A prompt: a question with the label names before the texts, and the label as its answer."""

from metatrain.models.config import PromptConfig

question = PromptConfig(
    instruction="Which of these describes each text: {labels}?",  # {labels}: the label names; without them, the line is left out
    text="Text: {text}",
    pair="\nCompared with: ",  # between the two texts of a pair
    separator="\n",
    label="Answer: {label}",
    end="\n\n",  # after a label, before the next example
    scoring="mean",
)
