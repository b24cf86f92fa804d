"""Runs the experiments on task distributions that docs/results.md reports: python scripts/distributions.py [SETTING=VALUE ...]

Runs that are there already, below outputs/results/distributions, are not repeated; --write only writes the section of the page. Data
sets are read from the folder METATRAIN_DATA.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
from results_page import ROOT, difference, percent, put_section, read_results, run_once

from metatrain.config.schema import TrainConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.training.run_directory import RunDirectory

RUNS = ROOT / "outputs" / "results" / "distributions"
FEWER_STEPS = "text_to_text_4_steps"
DRAWS = 2  # random selections that a selection by nearness is compared with
TARGETS = ("software.t4", "apparel.t4")
SELECTED = 6
UPDATES = 150
HEADING = "## Task distributions"

EXPERIMENTS = {
    "smlmt": ["+experiment=smlmt"],
    "smlmt_half": ["+experiment=smlmt", "tasks.masked_words.share=0.5"],
    "smlmt_labelled": ["+experiment=smlmt", "tasks.masked_words.share=0"],
    "cross_lingual": ["+experiment=cross_lingual"],
    "domain_adaptation": ["+experiment=domain_adaptation"],
    "text_to_text": ["+experiment=text_to_text"],
    "alphabets": ["+experiment=alphabets", "evaluation.arms=[meta_trained,no_meta_training,logistic_regression,prototypes]"],
    "pictures_and_texts": ["+experiment=pictures_and_texts", "evaluation.arms=[meta_trained,no_meta_training,logistic_regression,prototypes]"],
}
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


def run(name: str, settings: list[str], more: list[str]) -> None:
    """One training run with its meta-test, unless that was done."""
    run_once(RUNS / name, "train", [*settings, "tracking=none", *more])


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


def results(name: str) -> dict | None:
    return read_results(RUNS / name)


def arms_table(name: str, shots: str | None = None) -> list[str]:
    """A line for each arm of a run, the meta-trained one first; with so many examples a class, where there are several numbers."""
    found = results(name) if shots is None else results(name)["by_shots"][shots]
    against = {each["against"]: difference(each) for each in found["comparisons"]}
    lines = ["| arm | score | meta-trained minus it |", "|---|---|---|"]
    return lines + [f"| {arm.replace('_', ' ')} | {percent(value)} | {against.get(arm, '')} |" for arm, value in found["arms"].items()]


def tasks_table(name: str) -> list[str]:
    """The scores of every arm in every meta-test task."""
    found = results(name)
    arms, scores = found["arms"], found["protocol"]["scores"]
    lines = ["| task | score | " + " | ".join(arm.replace("_", " ") for arm in arms) + " |", "|---|---|" + "---|" * len(arms)]
    for task, score in scores.items():
        values = [f"{100 * arm['per_task'][task]['mean']:.1f} ± {100 * arm['per_task'][task]['ci95']:.1f}" for arm in arms.values()]
        lines.append(f"| {task} | {score} | {' | '.join(values)} |")
    return lines


def smlmt_table() -> list[str]:
    names = {"smlmt": "masked words alone", "smlmt_half": "half masked words, half labelled tasks", "smlmt_labelled": "labelled tasks alone"}
    lines = ["| training episodes | meta-trained | gain over the untouched encoder |", "|---|---|---|"]
    for name, what in names.items():
        found = results(name)
        (gain,) = (each for each in found["comparisons"] if each["against"] == "no_meta_training")
        lines.append(f"| {what} | {percent(found['arms']['meta_trained'])} | {difference(gain)} |")
    untouched = results("smlmt")["arms"]
    for arm in ("no_meta_training", "logistic_regression", "prototypes"):
        lines.append(f"| none: {arm.replace('_', ' ')} | {percent(untouched[arm])} | |")
    half, labelled = ([task["mean"] for task in results(name)["arms"]["meta_trained"]["per_task"].values()] for name in ("smlmt_half", "smlmt_labelled"))
    paired = np.array(half) - np.array(labelled)
    means = np.random.default_rng(0).choice(paired, (2000, len(paired))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return [
        *lines,
        "",
        f"Half masked words minus labelled alone: {100 * paired.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], bootstrap over the 15 tasks.",
    ]


def selection_table() -> list[str]:
    lines = ["| target | nearest | at random | training tasks chosen by nearness |", "|---|---|---|---|"]
    for target in TARGETS:
        domain = target.split(".")[0]

        def mean(choice: str, target: str = target, domain: str = domain) -> float:
            per_task = results(f"selection_{target}_{choice}")["arms"]["meta_trained"]["per_task"]
            return 100 * float(np.mean([value["mean"] for task, value in per_task.items() if task.startswith(domain)]))

        chosen = json.loads((RUNS / f"selection_{target}_nearest" / "tasks.json").read_text())
        randoms = ", ".join(f"{mean(f'random_{draw + 1}'):.1f}" for draw in range(DRAWS))
        lines.append(f"| {target} | {mean('nearest'):.1f} | {randoms} | {', '.join(chosen)} |")
    return lines


def section() -> str:
    """What docs/results.md says of task distributions."""
    lines = "\n".join
    return f"""\
{HEADING}

Runs by `python scripts/distributions.py`, one training seed each, in November 2026; intervals as above.

### Masked words (SMLMT) on ARSC

`+experiment=smlmt`: MiniLM with `protoanil`, {UPDATES} meta-updates of 4 episodes. Masked-word episodes come from the texts of 14 domains of
ARSC, whose labels are not used by them; tested on 15 tasks (2-way 5-shot, 10 episodes each) of five domains that no training saw.

{lines(smlmt_table())}

What did not help: masked words. Alone they leave the encoder where it was, and in half of the episodes they take the place of labelled
ones without harm or use.

### Other languages: NusaX

`+experiment=cross_lingual`: meta-trained on sentiment in eight languages, tested on four others, 3-way 5-shot. The encoder is one of
English.

{lines(arms_table("cross_lingual"))}

### From news to product reviews

`+experiment=domain_adaptation`: meta-trained on the topics of AG News and the sentiment of Financial PhraseBank, tested on the sentiment of
reviews (FDU-MTL), 2-way 5-shot.

{lines(arms_table("domain_adaptation"))}

### Translation, summaries and sentiment in one run, from random weights

`+experiment=text_to_text`: a T5 of 2 + 2 layers with random weights and first-order MAML, on captions from English into German, abstracts and
reviews; tested on captions into French, other abstracts, other domains, 10-shot.

{lines(tasks_table("text_to_text"))}

Twenty steps of adaptation are too many. Of 0, 2, 4, 10 and 20 steps, four, as in training, were best on the meta-validation tasks; the same
model with four:

{lines(tasks_table(FEWER_STEPS))}

{lines(arms_table(FEWER_STEPS))}

These are small numbers: random weights and 1,800 episodes make no translator. The query loss on held-out tasks was not measured; on training tasks
adaptation lowers it from 5.11 to 3.48 (last 50 meta-updates).

### Pictures: letters of scripts that meta-training never saw

`+experiment=alphabets`: prototypes by a vision transformer of two layers with random weights, on pictures of letters that `scripts/alphabets.py`
draws, nine scripts to train on; 5-way in three others, 100 episodes in each. 1-shot:

{lines(arms_table("alphabets", "1"))}

5-shot:

{lines(arms_table("alphabets", "5"))}

The other arms have an encoder that has learned nothing. Logistic regression on the pixels themselves, on other episodes of the same scripts
(`python scripts/alphabets.py FOLDER --pixels armenian georgian hebrew`): 33.9 and 52.5.

### Pictures and texts in one run

`+experiment=pictures_and_texts`: the same letters and the reviews in the package, by a CLIP of two and two layers with random weights; 2-way
5-shot, 100 episodes in each of three scripts and four products that meta-training never saw.

{lines(tasks_table("pictures_and_texts"))}

### Choosing training tasks by nearness

Meta-training as for ARSC above, without masked words, on {SELECTED} of the training tasks for 30 meta-updates; the target's domain alone is
tested (its three tasks, 15 episodes each). The nearest are those that `metatrain tasks target=TARGET select={SELECTED} nearness=1` suggests.

{lines(selection_table())}

Choosing by nearness made no difference here: for one target it is ahead of both random choices by less than a point, for the other behind both.
"""


def write() -> None:
    """Write the section; what was written stays where the runs are not there."""
    if results("smlmt"):
        put_section(HEADING, section())


def main(more: list[str]) -> None:
    if more == ["--write"]:
        write()
        return
    for name, settings in EXPERIMENTS.items():
        run(name, settings, more)
    fewer = [f"checkpoint={RUNS / 'text_to_text'}", "inner.steps=4", "evaluation.shots=[10]", "evaluation.episodes=5", "evaluation.queries=10"]
    run_once(RUNS / FEWER_STEPS, "evaluate", [*fewer, *more])
    for target in TARGETS:
        domain = target.split(".")[0]
        for choice, tasks in selections(target).items():
            name = f"selection_{target}_{choice}"
            run(name, [*SELECTION, f"tasks.meta_train.tasks=[{','.join(tasks)}]", f"tasks.meta_test.tasks=[{domain}.*]"], more)
            (RUNS / name / "tasks.json").write_text(json.dumps(tasks))
    write()


if __name__ == "__main__":
    main(sys.argv[1:])
