"""Runs the experiments on task distributions that docs/results.md reports: python scripts/distributions.py [SETTING=VALUE ...]

Runs that are there already, below outputs/results/distributions, are not repeated. Data sets are read from the folder METATRAIN_DATA;
scripts/data/alphabets.py and scripts/data/pairs.py make two of them.
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
from metatrain.run.directory import RunDirectory
from metatrain.tasks.distribution import load_tasks
from metatrain.tracking.metrics import read_metrics

RUNS = ROOT / "outputs" / "results" / "distributions"
DRAWS = 2  # random selections that a selection by nearness is compared with
TARGETS = ("software.t4", "apparel.t4")
SELECTED = 6
UPDATES = 150
HEADING = "## Task distributions"
INTRODUCTION = "Written by `python scripts/distributions.py`; runs of November 2026, one training seed each."

PICTURE_ARMS = "evaluation.arms=[meta_trained,no_meta_training,logistic_regression,prototypes]"
OF_SENTENCES = ("sentence_order", "same_text")
LABELLED = ["smlmt", "tasks.masked_words.share=0"]
# Components added to the recipe of sentiment_fewshot; tested on its meta-validation domains.
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
    found = {"nearest": out.split("suggested tasks: tasks.meta_train.tasks=[")[1].split("]")[0].replace("\n", "").split(",")}
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
    """Return a row per arm of a run, the meta-trained one first; `shots`: number of examples per class, if there are several."""
    found = results(name) if shots is None else results(name)["by_shots"][shots]
    against = {each["against"]: difference(each) for each in found["comparisons"]}
    lines = ["| arm | score | gain |", "|---|---|---|"]
    return joined(lines + [f"| `{arm}` | {percent(value)} | {against.get(arm, '')} |" for arm, value in found["arms"].items()])


def tasks_table(name: str, key: str = "mean") -> str:
    """The scores, or the `loss`, of every arm in every meta-test task."""
    found = results(name)
    arms, scores = found["arms"], found["protocol"]["scores"]

    def cell(task: dict[str, Any]) -> str:
        return f"{task['loss']:.2f}" if key == "loss" else percent(task)

    lines = ["| task | score | " + " | ".join(f"`{arm}`" for arm in arms) + " |", "|---|---|" + "---|" * len(arms)]
    for task, score in scores.items():
        lines.append(f"| {task} | {'log loss' if key == 'loss' else score} | {' | '.join(cell(arm['per_task'][task]) for arm in arms.values())} |")
    return joined(lines)


def smlmt() -> str:
    names = {"smlmt": "masked words only", "smlmt_half": "half masked words, half labelled tasks", "smlmt_labelled": "labelled tasks only"}
    lines = ["| training episodes | meta-trained | gain over no meta-training |", "|---|---|---|"]
    for name, what in names.items():
        found = results(name)
        (gain,) = (each for each in found["comparisons"] if each["against"] == "no_meta_training")
        lines.append(f"| {what} | {percent(found['arms']['meta_trained'])} | {difference(gain)} |")
    untouched = results("smlmt")["arms"]
    for arm in ("no_meta_training", "logistic_regression", "prototypes"):
        lines.append(f"| none: `{arm}` | {percent(untouched[arm])} | |")
    return f"""\
`+experiment=smlmt`: MiniLM with `protoanil`, {UPDATES} meta-updates of 4 episodes. Masked-word episodes are built from the texts of 14
domains of ARSC without their labels. Test: 15 tasks (2-way 5-shot, 10 episodes each) of five unseen domains.

{joined(lines)}

Half masked words minus labelled tasks only: {paired(RUNS / "smlmt_half", RUNS / "smlmt_labelled", "5")}.

Masked-word tasks did not help: used on their own they do not improve the encoder, and in half of the episodes they neither improve nor
significantly worsen the labelled tasks."""


def beside() -> str:
    lines = ["| component | 1-shot | difference from unchanged, 1-shot | 5-shot | difference from unchanged, 5-shot |", "|---|---|---|---|---|"]
    for name, settings in BESIDE.items():
        cells = []
        for shots in ("1", "5"):
            score = percent(results(f"beside_{name}")["by_shots"][shots]["arms"]["meta_trained"])
            cells += [score, "" if name == "as_it_is" else paired(RUNS / f"beside_{name}", RUNS / "beside_as_it_is", shots)]
        lines.append(f"| `{' '.join(settings) or 'unchanged'}` | {' | '.join(cells)} |")
    return f"""\
The recipe of `sentiment_fewshot` on the reviews included in the package, with one additional component at a time; one training seed, 40 episodes
in each of three meta-validation domains. With clusters, a quarter of the episodes classify texts into clusters of their
encodings (CACTUs); the samplers (curriculum, hardness, bandit) choose among nine training domains.

{joined(lines)}

No component helped. The intervals come from one training seed, while three seeds of the recipe itself differ by two points (below). With three
domains and twelve comparisons no difference is significant after correction. Clusters and the hardness sampler score lowest."""


def sentences() -> str:
    alone = RUNS / "smlmt_labelled"
    lines = ["| added to the labelled tasks | meta-trained | difference from labelled tasks only |", "|---|---|---|"]
    lines.append(f"| nothing | {percent(meta_trained(alone, '5'))} | |")
    for kind in OF_SENTENCES:
        run = RUNS / f"smlmt_{kind}"
        lines.append(f"| `tasks.{kind}.share=0.25` | {percent(meta_trained(run, '5'))} | {paired(run, alone, '5')} |")
    return f"""\
Self-supervised sentence-pair tasks in a quarter of the episodes, all other settings as for masked words on ARSC: does the second sentence follow
the first (`sentence_order`), do both come from the same text (`same_text`)?

{joined(lines)}

Neither differs significantly from the labelled tasks only (one training seed), although they replace a quarter of the labelled episodes: no cost
and no benefit was measured."""


def languages() -> str:
    return f"""\
`+experiment=cross_lingual`: meta-trained on sentiment in eight languages, tested on four unseen languages, 3-way 5-shot, with an English
encoder.

{arms_table("cross_lingual")}"""


def domains() -> str:
    return f"""\
`+experiment=domain_adaptation`: meta-trained on AG News topics and Financial PhraseBank sentiment, tested on review sentiment (FDU-MTL),
2-way 5-shot.

{arms_table("domain_adaptation")}"""


def text_to_text() -> str:
    steps = json.loads((RUNS / "text_to_text" / "analysis.json").read_text(encoding="utf-8"))["by_steps"]["by_shots"]["10"]
    lines = ["| inner steps | score | log loss |", "|---|---|---|"]
    lines += [f"| {count} | {100 * steps['steps'][count]:.1f} | {steps['losses'][count]:.2f} |" for count in steps["steps"]]
    return f"""\
`+experiment=text_to_text`: a randomly initialised T5 of 2 + 2 layers with first-order MAML. Meta-training: captions from English into German,
abstracts and reviews. Test: captions into French, other abstracts and other review domains, 10-shot, 5 episodes each.

{tasks_table("text_to_text")}

Log loss in nats, per token of the target text or of the correct label:

{tasks_table("text_to_text", "loss")}

All six tasks:

{arms_table("text_to_text")}

Score of the meta-trained model by number of inner steps, mean over the six tasks (the experiment uses 4):

{joined(lines)}

Scores are low: 1,800 episodes from random weights do not train a translator. Meta-validation (mean of sentiment accuracy, chrF and ROUGE-L)
chose the model of step 150 of 450."""


def alphabets() -> str:
    return f"""\
`+experiment=alphabets`: ProtoNet with a randomly initialised two-layer vision transformer, on character images (Omniglot-style) drawn by
`scripts/data/alphabets.py`. Nine training alphabets, three test alphabets, 5-way, 100 episodes each. 1-shot:

{arms_table("alphabets", "1")}

5-shot:

{arms_table("alphabets", "5")}

The encoder of the other arms is untrained. Logistic regression on pixels scores 33.9 and 52.5 on other episodes of the same alphabets
(`python scripts/data/alphabets.py FOLDER --pixels armenian georgian hebrew`)."""


def pictures_and_texts() -> str:
    return f"""\
`+experiment=pictures_and_texts`: the same character images and the reviews included in the package, with a randomly initialised CLIP of two
layers per modality; 2-way 5-shot, 100 episodes in each of three unseen alphabets and four unseen products.

{tasks_table("pictures_and_texts")}"""


def same_request() -> str:
    def seeds(shots: str) -> str:
        return ", ".join(mean(meta_trained(RUNS / name, shots)) for name in ("same_request", *(f"same_request_{seed}" for seed in MORE_SEEDS)))

    return f"""\
`+experiment=same_request`: do two requests have the same intent? Pairs of CLINC150 requests (created by `scripts/data/pairs.py`), one task per
domain: six training domains, two test domains, 50 episodes each. 5-shot:

{arms_table("same_request", "5")}

1-shot:

{arms_table("same_request", "1")}

Accuracy of `meta_trained` for training seeds 0, 1, 2, 5-shot; 1-shot: {seeds("5")}; {seeds("1")}.

Label names alone do nearly as well, because they are the same in every task: the model learned the task in meta-training, and the examples add
little at 5 shots. Candidates on the meta-validation tasks, 20 episodes each (the other algorithms ran on one H100):

{candidates_table(RUNS, "same_request_valid", REQUESTS, ("1", "5"), percent)}"""


def nearness() -> str:
    lines = ["| target task | nearest training tasks | two random selections | nearest training tasks, names |", "|---|---|---|---|"]
    for target in TARGETS:
        domain = target.split(".")[0]

        def mean(choice: str, target: str = target, domain: str = domain) -> float:
            per_task = results(f"selection_{target}_{choice}")["arms"]["meta_trained"]["per_task"]
            return 100 * float(np.mean([value["mean"] for task, value in per_task.items() if task.startswith(domain)]))

        chosen = json.loads((RUNS / f"selection_{target}_nearest" / "tasks.json").read_text())
        randoms = ", ".join(f"{mean(f'random_{draw + 1}'):.1f}" for draw in range(DRAWS))
        lines.append(f"| {target} | {mean('nearest'):.1f} | {randoms} | {', '.join(chosen)} |")
    return f"""\
Meta-training as for ARSC above, without masked words, on {SELECTED} of the training tasks for 30 meta-updates; tested on the
three tasks of the target's domain, 15 episodes each. The nearest training tasks are those that
`metatrain tasks target=TARGET select={SELECTED} nearness=1` suggests.

{joined(lines)}

Selecting training tasks by nearness made no difference here: for one target it is better than both random selections by less than a point, for
the other it is worse than both."""


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
`algorithm=in_context` (MetaICL) with a randomly initialised two-layer GPT-2: five intents of one domain of CLINC150, one example per intent as
the prompt of each query; six training domains, two test domains, 50 episodes each. After {len(trained)} meta-updates its accuracy is {last:.0f}% on the
queries of its training tasks (the last {IN_CONTEXT_LAST} meta-updates) and {percent(arms["meta_trained"])}% in unseen domains, where chance is 20.
The model memorises the six training domains, whose intents always have the same names, instead of reading the prompt. The method needs a
pretrained decoder-only model and many kinds of tasks; neither was available."""


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
        "Sentence-pair tasks on ARSC",
        sentences,
        {"smlmt_labelled": train(*LABELLED), **{f"smlmt_{kind}": train(*LABELLED, f"tasks.{kind}.share=0.25") for kind in OF_SENTENCES}},
    ),
    Section(
        "Contrastive loss, clusters and samplers",
        beside,
        {f"beside_{name}": train("sentiment_fewshot", *settings, *BESIDE_ON_VALIDATION) for name, settings in BESIDE.items()},
    ),
    Section("Other languages: NusaX", languages, {"cross_lingual": train("cross_lingual")}),
    Section("From news to product reviews", domains, {"domain_adaptation": train("domain_adaptation")}),
    Section(
        "Translation, summarisation and sentiment in one run, from random weights",
        text_to_text,
        {"text_to_text": train("text_to_text")},
    ),
    Section("Images: characters of unseen alphabets", alphabets, {"alphabets": train("alphabets", PICTURE_ARMS)}),
    Section("Images and texts in one run", pictures_and_texts, {"pictures_and_texts": train("pictures_and_texts", PICTURE_ARMS)}),
    Section(
        "Text pairs: do two requests have the same intent?",
        same_request,
        {
            **{f"same_request_valid_{name}": train("same_request", *settings, *REQUESTS_ON_VALIDATION) for name, settings in REQUESTS.items()},
            "same_request": train("same_request"),
            **{f"same_request_{seed}": train("same_request", f"seed={seed}") for seed in MORE_SEEDS},
        },
    ),
    Section(
        "Selecting training tasks by nearness",
        nearness,
        {"smlmt_labelled": train(*LABELLED)},
        select,
        [f"selection_{target}_{choice}" for target in TARGETS for choice in ("nearest", *(f"random_{draw + 1}" for draw in range(DRAWS)))],
    ),
    Section("In context, from random weights", in_context, {"in_context": Run("train", IN_CONTEXT)}),
]

if __name__ == "__main__":
    write_page(__doc__, HEADING, INTRODUCTION, RUNS, SECTIONS)
