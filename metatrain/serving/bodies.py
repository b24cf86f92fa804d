"""Bodies of requests and answers, from which the OpenAPI page is made."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Text = str | tuple[str, str]  # two texts that belong together: a premise and a hypothesis, say


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Example(_Body):
    """A labelled text."""

    text: Text
    label: str = Field(min_length=1)


class Examples(_Body):
    """Examples to add to a task."""

    examples: list[Example] = Field(min_length=1)


class NewTask(_Body):
    """Examples of a task, some of each label."""

    examples: list[Example] = Field(min_length=1)
    none_of_these: float | None = Field(None, gt=0, lt=1, description="fraction of in-scope texts that may be taken for out of scope; null: never")


class Texts(_Body):
    """Texts to predict."""

    texts: list[Text]
    top: int = Field(1, ge=1, description="number of labels per text, the most probable first")
    threshold: float | None = Field(None, gt=0, le=1, description="a text whose highest probability is below it gets no label; null: each gets one")


class TaskFacts(BaseModel):
    """A task of the server."""

    name: str
    labels: list[str]
    examples: int = Field(description="number of examples it was learned from")
    none_of_these: float | None


class TaskContent(TaskFacts):
    """A task with its examples."""

    learned_from: list[Example]


class Ranked(BaseModel):
    """A label with its probability."""

    label: str
    probability: float


class Prediction(BaseModel):
    """The prediction for a text."""

    label: str | None = Field(description="none_of_these: out of scope; null: the probability is below the threshold")
    labels: list[Ranked] = Field(description="the most probable labels, with probabilities among the labels")


class Predictions(BaseModel):
    """Predictions for texts, in their order."""

    predictions: list[Prediction]


class Health(BaseModel):
    """State of the server."""

    status: str
    checkpoint: str
    tasks: int
    version: str
