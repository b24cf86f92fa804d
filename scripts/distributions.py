"""Runs the experiments on task distributions that docs/results.md reports: python scripts/distributions.py [SETTING=VALUE ...]

Runs that are there already, below outputs/results/distributions, are not repeated. Data sets are read from the folder METATRAIN_DATA;
scripts/alphabets.py and scripts/pairs.py make two of them.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from results_page import ROOT, Run, Section, candidates_table, difference, mean, meta_trained, paired, percent, read_results, run_once, train, write_page

from metatrain.config.schema import TrainConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tracking.metrics import read_metrics
from metatrain.training.run_directory import RunDirectory

RUNS = ROOT / "outputs" / "results" / "distributions"
DRAWS = 2  # random selections that a selection by nearness is compared with
TARGETS = ("software.t4", "apparel.t4")
SELECTED = 6
UPDATES = 150
HEADING = "## Task distributions"
INTRODUCTION = "Runs by `python scripts/distributions.py`, one training seed each, in November 2026; intervals as above."

PICTURE_ARMS = "evaluation.arms=[meta_trained,no_meta_training,logistic_regression,prototypes]"
OF_SENTENCES = ("sentence_order", "same_text")
LABELLED = ["smlmt", "tasks.masked_words.share=0"]
# What may help beside labelled tasks, in the recipe of sentiment_fewshot; tested on its meta-validation domains.
BESIDE = {
    "as_it_is": [],
    "contrastive_supervised": ["algorithm.contrastive=supervised"],
    "contrastive_unsupervised": ["algorithm.contrastive=unsupervised", "algorithm.dropout=0.1"],
    "clusters": ["tasks.clusters.share=0.25"],
    "curriculum": ["tasks.sampling.by=curriculum"],
    "hardness": ["tasks.sampling.by=hardness"],
    "bandit": ["tasks.sampling.by=bandit"],
}
BESIDE_ON_VALIDATION = [
    *("tasks.meta_test.tasks=[clothing,garden,software]", "tasks.meta_validation.tasks=[delivery]", "validation.every=0", "report=false"),
    *("evaluation.episodes=40", "evaluation.shots=[5,1]", "evaluation.arms=[meta_trained]"),
]
# Candidates for same_request, on its meta-validation tasks.
REQUESTS = {
    "anil_1e-4": ["algorithm=anil"],
    "protoanil_1e-4": ["algorithm=protoanil"],
    "fomaml_1e-4": ["algorithm=fomaml"],
    "recommended_1e-4": [],
}
MORE_SEEDS = (1, 2)
REQUESTS_ON_VALIDATION = [
    *("tasks.meta_validation.tasks=[]", "validation.every=0", "tasks.meta_test.tasks=[small_talk,work]", "report=false"),
    *("evaluation.episodes=20", "evaluation.queries=50", "evaluation.arms=[meta_trained,logistic_regression]"),
]
IN_CONTEXT = [
    *("tasks=clinc150", "algorithm=in_context", "model=scratch_gpt2", "episode.way=5", "episode.shots=1", "episode.queries=3"),
    *("outer.steps=300", "outer.meta_batch=8", "outer.lr=1e-3", "validation.every=100", "validation.episodes=20"),
    *("evaluation.shots=[1]", "evaluation.episodes=50", "evaluation.arms=[meta_trained,no_meta_training]", "report=false", "tracking=none"),
]
IN_CONTEXT_LAST = 50
FILES = "tasks.meta_train.files=[meta_train.jsonl.gz]"  # without music and video, whose rows are in other files
# The tasks and episodes of smlmt, without its masked words and in a fifth of its updates.
SELECTION = [
    "+experiment=smlmt",
    "tasks.masked_words.share=0",
    FILES,
    "outer.steps=30",
    "outer.warmup=5",
    "evaluation.episodes=15",
    "evaluation.arms=[meta_trained]",
]


def selections(target: str) -> dict[str, list[str]]:
    """Training tasks for a target: the nearest by `metatrain tasks`, and some at random."""
    command = [sys.executable, "-m", "metatrain", "tasks", "tasks=arsc", *_splits(), FILES, f"target={target}", f"select={SELECTED}", "nearness=1"]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {"nearest": out.split("suggestion: tasks.meta_train.tasks=[")[1].split("]")[0].replace("\n", "").split(",")}
    config = RunDirectory(RUNS / "smlmt_labelled").load_config(TrainConfig)
    config.tasks.meta_train.files = ["meta_train.jsonl.gz"]
    names = [task.name for task in load_tasks(config.tasks, config.seed).meta_train]
    for draw in range(DRAWS):
        found[f"random_{draw + 1}"] = sorted(random.Random(f"{target} {draw}").sample(names, SELECTED))
    return found


def _splits() -> list[str]:
    """The splits of conf/experiment/smlmt.yaml as overrides, for `metatrain tasks`, which takes no experiment."""
    import yaml

    tasks = yaml.safe_load((ROOT / "conf" / "experiment" / "smlmt.yaml").read_text())["tasks"]
    keys = [(split, key, value) for split in ("meta_train", "meta_validation", "meta_test") for key, value in tasks[split].items()]
    return [f"tasks.{split}.{key}=[{','.join(value)}]" for split, key, value in keys]


def results(name: str) -> dict[str, Any]:
    return read_results(RUNS / name)


def joined(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def arms_table(name: str, shots: str | None = None) -> str:
    """A line for each arm of a run, the meta-trained one first; with so many examples a class, where there are several numbers."""
    found = results(name) if shots is None else results(name)["by_shots"][shots]
    against = {each["against"]: difference(each) for each in found["comparisons"]}
    lines = ["| arm | score | meta-trained minus it |", "|---|---|---|"]
    return joined(lines + [f"| {arm.replace('_', ' ')} | {percent(value)} | {against.get(arm, '')} |" for arm, value in found["arms"].items()])


def tasks_table(name: str, key: str = "mean") -> str:
    """The scores, or the `loss`, of every arm in every meta-test task."""
    found = results(name)
    arms, scores = found["arms"], found["protocol"]["scores"]

    def cell(task: dict[str, Any]) -> str:
        return f"{task['loss']:.2f}" if key == "loss" else percent(task)

    lines = ["| task | score | " + " | ".join(arm.replace("_", " ") for arm in arms) + " |", "|---|---|" + "---|" * len(arms)]
    for task, score in scores.items():
        lines.append(f"| {task} | {'log loss' if key == 'loss' else score} | {' | '.join(cell(arm['per_task'][task]) for arm in arms.values())} |")
    return joined(lines)


def smlmt() -> str:
    names = {"smlmt": "masked words alone", "smlmt_half": "half masked words, half labelled tasks", "smlmt_labelled": "labelled tasks alone"}
    lines = ["| training episodes | meta-trained | gain over the untouched encoder |", "|---|---|---|"]
    for name, what in names.items():
        found = results(name)
        (gain,) = (each for each in found["comparisons"] if each["against"] == "no_meta_training")
        lines.append(f"| {what} | {percent(found['arms']['meta_trained'])} | {difference(gain)} |")
    untouched = results("smlmt")["arms"]
    for arm in ("no_meta_training", "logistic_regression", "prototypes"):
        lines.append(f"| none: {arm.replace('_', ' ')} | {percent(untouched[arm])} | |")
    return f"""\
`+experiment=smlmt`: MiniLM with `protoanil`, {UPDATES} meta-updates of 4 episodes. Masked-word episodes come from the texts of 14 domains of
ARSC, whose labels are not used by them; tested on 15 tasks (2-way 5-shot, 10 episodes each) of five domains that no training saw.

{joined(lines)}

Half masked words minus labelled alone: {paired(RUNS / "smlmt_half", RUNS / "smlmt_labelled", "5")}.

What did not help: masked words. Alone they leave the encoder where it was, and in half of the episodes they take the place of labelled
ones without harm or use."""


def beside() -> str:
    lines = ["| | 1-shot | minus as it is | 5-shot | minus as it is |", "|---|---|---|---|---|"]
    for name, settings in BESIDE.items():
        cells = []
        for shots in ("1", "5"):
            score = percent(results(f"beside_{name}")["by_shots"][shots]["arms"]["meta_trained"])
            cells += [score, "" if name == "as_it_is" else paired(RUNS / f"beside_{name}", RUNS / "beside_as_it_is", shots)]
        lines.append(f"| `{' '.join(settings) or 'as it is'}` | {' | '.join(cells)} |")
    return f"""\
The recipe of `sentiment_fewshot` on the reviews in the package, each time with one thing more; one training seed, 40 episodes in each of three
meta-validation domains. A quarter of the episodes are of clusters; the samplers choose among nine domains.

{joined(lines)}

None of them helped. The intervals are of one training seed: three seeds of the recipe itself are two points apart (below). With three domains and twelve
comparisons no difference is significant after correction; clusters and the sampler by hardness score lowest."""


def sentences() -> str:
    alone = RUNS / "smlmt_labelled"
    lines = ["| beside the labelled tasks | meta-trained | minus the labelled tasks alone |", "|---|---|---|"]
    lines.append(f"| nothing | {percent(meta_trained(alone, '5'))} | |")
    for kind in OF_SENTENCES:
        run = RUNS / f"smlmt_{kind}"
        lines.append(f"| `tasks.{kind}.share=0.25` | {percent(meta_trained(run, '5'))} | {paired(run, alone, '5')} |")
    return f"""\
Tasks of two sentences from the texts themselves in a quarter of the episodes, everything else as for masked words on ARSC: does the second
follow the first (`sentence_order`), are both of one text (`same_text`)?

{joined(lines)}

Neither can be told from the labelled tasks alone (one training seed), though a quarter of their episodes is gone: they cost nothing, and that they
help was not shown."""


def languages() -> str:
    return f"""\
`+experiment=cross_lingual`: meta-trained on sentiment in eight languages, tested on four others, 3-way 5-shot. The encoder is one of
English.

{arms_table("cross_lingual")}"""


def domains() -> str:
    return f"""\
`+experiment=domain_adaptation`: meta-trained on the topics of AG News and the sentiment of Financial PhraseBank, tested on the sentiment of
reviews (FDU-MTL), 2-way 5-shot.

{arms_table("domain_adaptation")}"""


def text_to_text() -> str:
    steps = json.loads((RUNS / "text_to_text" / "analysis.json").read_text(encoding="utf-8"))["by_steps"]["by_shots"]["10"]
    lines = ["| inner steps | score | log loss |", "|---|---|---|"]
    lines += [f"| {count} | {100 * steps['steps'][count]:.1f} | {steps['losses'][count]:.2f} |" for count in steps["steps"]]
    return f"""\
`+experiment=text_to_text`: a T5 of 2 + 2 layers with random weights and first-order MAML, on captions from English into German, abstracts and
reviews; tested on captions into French, other abstracts, other domains, 10-shot, 5 episodes each.

{tasks_table("text_to_text")}

Log loss of the same: of the tokens of a wanted text, or of the right label, in nats.

{tasks_table("text_to_text", "loss")}

All six tasks:

{arms_table("text_to_text")}

The meta-trained model after so many inner steps, mean over the six tasks; the experiment takes 4.

{joined(lines)}

These are small numbers: random weights and 1,800 episodes make no translator. Meta-validation, whose mean is over accuracy of sentiment, chrF and
ROUGE-L, chose the model of step 150 of 450."""


def alphabets() -> str:
    return f"""\
`+experiment=alphabets`: prototypes by a vision transformer of two layers with random weights, on pictures of letters that `scripts/alphabets.py`
draws, nine scripts to train on; 5-way in three others, 100 episodes in each. 1-shot:

{arms_table("alphabets", "1")}

5-shot:

{arms_table("alphabets", "5")}

The other arms have an encoder that has learned nothing. Logistic regression on the pixels themselves, on other episodes of the same scripts
(`python scripts/alphabets.py FOLDER --pixels armenian georgian hebrew`): 33.9 and 52.5."""


def pictures_and_texts() -> str:
    return f"""\
`+experiment=pictures_and_texts`: the same letters and the reviews in the package, by a CLIP of two and two layers with random weights; 2-way
5-shot, 100 episodes in each of three scripts and four products that meta-training never saw.

{tasks_table("pictures_and_texts")}"""


def same_request() -> str:
    def seeds(shots: str) -> str:
        return ", ".join(mean(meta_trained(RUNS / name, shots)) for name in ("same_request", *(f"same_request_{seed}" for seed in MORE_SEEDS)))

    return f"""\
`+experiment=same_request`: do these two requests want the same? Pairs of requests of CLINC150, a task for each of its domains
(`scripts/pairs.py` makes them), six to train on; tested in two others, 50 episodes in each. 5-shot:

{arms_table("same_request", "5")}

1-shot:

{arms_table("same_request", "1")}

Training seeds 0, 1, 2, 5-shot and 1-shot: {seeds("5")}; {seeds("1")}.

The names of the classes alone, which are those of every task, do nearly as well: the task was learned in meta-training, and examples add a little
at 5 shots. Candidates on the meta-validation tasks, 20 episodes in each (those of other algorithms ran on one H100):

{candidates_table(RUNS, "same_request_valid", REQUESTS, ("1", "5"), percent)}"""


def nearness() -> str:
    lines = ["| target | nearest | at random | training tasks chosen by nearness |", "|---|---|---|---|"]
    for target in TARGETS:
        domain = target.split(".")[0]

        def mean(choice: str, target: str = target, domain: str = domain) -> float:
            per_task = results(f"selection_{target}_{choice}")["arms"]["meta_trained"]["per_task"]
            return 100 * float(np.mean([value["mean"] for task, value in per_task.items() if task.startswith(domain)]))

        chosen = json.loads((RUNS / f"selection_{target}_nearest" / "tasks.json").read_text())
        randoms = ", ".join(f"{mean(f'random_{draw + 1}'):.1f}" for draw in range(DRAWS))
        lines.append(f"| {target} | {mean('nearest'):.1f} | {randoms} | {', '.join(chosen)} |")
    return f"""\
Meta-training as for ARSC above, without masked words, on {SELECTED} of the training tasks for 30 meta-updates; the target's domain alone is
tested (its three tasks, 15 episodes each). The nearest are those that `metatrain tasks target=TARGET select={SELECTED} nearness=1` suggests.

{joined(lines)}

Choosing by nearness made no difference here: for one target it is ahead of both random choices by less than a point, for the other behind both."""


def select(settings: Sequence[str]) -> None:
    """The runs of the selections."""
    for target in TARGETS:
        domain = target.split(".")[0]
        for choice, tasks in selections(target).items():
            name = f"selection_{target}_{choice}"
            chosen = [f"tasks.meta_train.tasks=[{','.join(tasks)}]", f"tasks.meta_test.tasks=[{domain}.*]", "tracking=none"]
            run_once(RUNS / name, "train", [*SELECTION, *chosen, *settings])
            (RUNS / name / "tasks.json").write_text(json.dumps(tasks))


def in_context() -> str:
    trained = [event for event in read_metrics(RUNS / "in_context" / "metrics.jsonl") if event["split"] == "meta_train"]
    last = 100 * float(np.mean([event["accuracy_after"] for event in trained[-IN_CONTEXT_LAST:]]))
    arms = results("in_context")["arms"]
    return f"""\
`algorithm=in_context` (MetaICL) in a GPT-2 of two layers with random weights: five intents of one domain of CLINC150, one example of each, read before
each query; six domains to train on, two others tested, 50 episodes in each. After {len(trained)} meta-updates it answers {last:.0f}% of the
queries of its training tasks (the last {IN_CONTEXT_LAST} meta-updates), and {percent(arms["meta_trained"])}% of those in domains that it never saw, where
chance is 20: six domains whose intents are always called the same are learned by heart, not from what stands before the query. The method wants a
pretrained decoder and many kinds of tasks, which were not at hand."""


SECTIONS = [
    Section(
        "Masked words (SMLMT) on ARSC",
        smlmt,
        {
            "smlmt": train("smlmt"),
            "smlmt_half": train("smlmt", "tasks.masked_words.share=0.5"),
            "smlmt_labelled": train(*LABELLED),
        },
    ),
    Section(
        "Tasks of two sentences, on ARSC",
        sentences,
        {"smlmt_labelled": train(*LABELLED), **{f"smlmt_{kind}": train(*LABELLED, f"tasks.{kind}.share=0.25") for kind in OF_SENTENCES}},
    ),
    Section(
        "A contrastive term, clusters and samplers",
        beside,
        {f"beside_{name}": train("sentiment_fewshot", *settings, *BESIDE_ON_VALIDATION) for name, settings in BESIDE.items()},
    ),
    Section("Other languages: NusaX", languages, {"cross_lingual": train("cross_lingual")}),
    Section("From news to product reviews", domains, {"domain_adaptation": train("domain_adaptation")}),
    Section(
        "Translation, summaries and sentiment in one run, from random weights",
        text_to_text,
        {"text_to_text": train("text_to_text")},
    ),
    Section("Pictures: letters of scripts that meta-training never saw", alphabets, {"alphabets": train("alphabets", PICTURE_ARMS)}),
    Section("Pictures and texts in one run", pictures_and_texts, {"pictures_and_texts": train("pictures_and_texts", PICTURE_ARMS)}),
    Section(
        "Pairs of texts: do two requests want the same?",
        same_request,
        {
            **{f"same_request_valid_{name}": train("same_request", *settings, *REQUESTS_ON_VALIDATION) for name, settings in REQUESTS.items()},
            "same_request": train("same_request"),
            **{f"same_request_{seed}": train("same_request", f"seed={seed}") for seed in MORE_SEEDS},
        },
    ),
    Section(
        "Choosing training tasks by nearness",
        nearness,
        {"smlmt_labelled": train(*LABELLED)},
        select,
        [f"selection_{target}_{choice}" for target in TARGETS for choice in ("nearest", *(f"random_{draw + 1}" for draw in range(DRAWS)))],
    ),
    Section("In context, from random weights", in_context, {"in_context": Run("train", IN_CONTEXT)}),
]

if __name__ == "__main__":
    write_page(__doc__, HEADING, INTRODUCTION, RUNS, SECTIONS)
