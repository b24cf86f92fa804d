"""Meta-train a Hugging Face model, from its own class: few-shot token classification with a BERT that begins at random weights.

    python examples/hugging_face.py        [--updates 200] [--test-tasks 100] [--seed 0]

Every task tags the words of a new category: three words out of 60, which differ from task to task and occur among words that never count.
A task has six tagged sentences as its support set and ten as its query set. Only the last layer and the classifier adapt; the other
parameters are meta-trained with them. The model runs with dropout in meta-training. The output is the mean F1 score of the tagged words on
100 new tasks after adaptation:

    after    0 meta-updates: 0.399
    after  200 meta-updates: 0.992

It takes about 50 seconds on one core.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor
from transformers import BertConfig, BertForTokenClassification

from metatrain.gradient import InnerLoop

WORDS, FILLERS, CATEGORY, LENGTH, TASKS = 60, 40, 3, 12, 4
Sentences = dict[str, Tensor]  # arguments of the model: input_ids, labels


def sentences(category: Tensor, count: int) -> Sentences:
    """Random sentences of words and fillers, with label 1 at the words of the category."""
    words = torch.randint(WORDS + FILLERS, (count, LENGTH))
    words[:, :CATEGORY] = category  # each occurs in every sentence
    words = words.gather(1, torch.rand(count, LENGTH).argsort(1))
    return {"input_ids": words, "labels": torch.isin(words, category).long()}


def task() -> tuple[Sentences, Sentences]:
    """Support and query set of a random task."""
    category = torch.randperm(WORDS)[:CATEGORY]
    return sentences(category, 6), sentences(category, 10)


def loss(batch: Sentences, model: BertForTokenClassification) -> Tensor:
    """The loss that the model computes itself."""
    return model(**batch).loss


def train(updates: int) -> InnerLoop[BertForTokenClassification]:
    """Meta-train a small BERT from scratch."""
    config = BertConfig(vocab_size=WORDS + FILLERS, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    maml = InnerLoop(BertForTokenClassification(config), lr=0.1, steps=5, adapt=["bert.encoder.layer.1.*", "classifier.*"])
    optimizer = torch.optim.Adam(maml.parameters(), lr=3e-3)
    for _ in range(updates):
        optimizer.zero_grad()
        for _ in range(TASKS):
            support, query = task()
            maml.backward(partial(loss, support), partial(loss, query), weight=1 / TASKS)
        optimizer.step()
    return maml


def f1(maml: InnerLoop[BertForTokenClassification], test_tasks: int) -> float:
    """F1 score of label 1 on new tasks after adaptation."""
    maml.eval()
    scores = []
    for _ in range(test_tasks):
        support, query = task()
        predicted = maml.adapt(partial(loss, support))(query["input_ids"]).logits.argmax(2)
        scores.append(2 * (predicted * query["labels"]).sum() / (predicted.sum() + query["labels"].sum()))
    return float(torch.stack(scores).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200, help="meta-updates")
    parser.add_argument("--test-tasks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # more threads do not speed up tensors this small
    for updates in (0, arguments.updates):
        torch.manual_seed(arguments.seed)
        maml = train(updates)
        torch.manual_seed(10_000 + arguments.seed)  # the same test tasks
        print(f"after {updates:4} meta-updates: {f1(maml, arguments.test_tasks):.3f}")


if __name__ == "__main__":
    main()
