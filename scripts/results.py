"""Runs every method of conf/algorithm/ for encoders on two task distributions: python scripts/results.py

Writes their section of docs/results.md.
Runs that are there already, below outputs/results, are not repeated; --write only writes the page. CLINC150 is read from the
folder METATRAIN_DATA (see conf/tasks/clinc150.yaml). Other arguments, `hardware.threads=1` say, go to every run.
"""

from __future__ import annotations

import json
import sys

from results_page import PAGE, ROOT, percent, run_once

from metatrain.report.sections import put_section

HEADING = "## Comparison of methods"
RUNS = ROOT / "outputs" / "results" / "methods"
UPDATES, META_BATCH, RATE, EPISODES = 30, 4, 2e-4, 20

# What is tested on are the meta-validation tasks: the meta-test tasks are not for comparing methods.
DISTRIBUTIONS = {
    "reviews": ["tasks=reviews", "tasks.meta_test.tasks=[clothing,garden,software]"],
    "clinc150": ["tasks=clinc150", "tasks.meta_test.tasks=[small_talk,work]", "episode.way=5", "episode.shots=1", "evaluation.shots=[1]"],
}
TITLES = {
    "reviews": "`reviews`, 2-way 5-shot: nine training domains, three test domains",
    "clinc150": "CLINC150, 5-way 1-shot: six training domains, two test domains",
}
BUDGET = [
    f"outer.steps={UPDATES}",
    f"outer.meta_batch={META_BATCH}",
    f"outer.lr={RATE}",
    "outer.warmup=3",
    "validation.every=0",
    "tasks.meta_validation.tasks=[]",
    f"evaluation.episodes={EPISODES}",
    "evaluation.queries=25",
    "tracking=none",
]
# Methods of which only what they add is trained need larger steps of it.
OWN = {"maml_lora": ["outer.lr=2e-3"]}
BASELINES = ("logistic_regression", "prototypes")
WITH_BASELINES = "protonet"  # the run in which they are computed: they do not depend on the method


def methods() -> list[str]:
    """Names of the presets of encoders."""
    return sorted(path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml") if path.stem != "in_context")


def run(distribution: str, method: str, more: list[str]) -> None:
    """Meta-train one method and evaluate it before and after, unless that was done."""
    arms = ["meta_trained", "no_meta_training", *(BASELINES if method == WITH_BASELINES else ())]
    settings = [f"algorithm={method}", *DISTRIBUTIONS[distribution], *BUDGET, *OWN.get(method, []), f"evaluation.arms=[{','.join(arms)}]", *more]
    run_once(RUNS / distribution / method, "train", settings)


def row(distribution: str, method: str) -> tuple[float, str]:
    """A method's accuracy and its line of the table."""
    folder = RUNS / distribution / method
    results = json.loads((folder / "results.json").read_text())
    trained, before = results["arms"]["meta_trained"], results["arms"]["no_meta_training"]
    (found,) = (each for each in results["comparisons"] if each["against"] == "no_meta_training")
    low, high = (100 * bound for bound in found["ci95"])
    gain = f"{100 * found['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record["split"] == "meta_train"][-5:]
    losses = " → ".join(f"{sum(record[key] for record in last) / len(last):.2f}" for key in ("loss_before", "loss_after"))
    line = f"| `{method}` | {percent(trained)} | {percent(before)} | {gain} | {losses} |"
    return trained["mean"], line


def table(distribution: str) -> str:
    """Methods from the best to the worst, then what needs no meta-training."""
    lines = [
        f"### {TITLES[distribution]}",
        "",
        "| preset | meta-trained | without meta-training | gain | query loss before → after adaptation |",
        "|---|---|---|---|---|",
    ]
    done = [method for method in methods() if (RUNS / distribution / method / "results.json").exists()]
    lines += [line for _, line in sorted((row(distribution, method) for method in done), reverse=True)]
    arms = json.loads((RUNS / distribution / WITH_BASELINES / "results.json").read_text())["arms"]
    lines += [f"| {name.replace('_', ' ')} on the frozen encoder | | {percent(arms[name])} | | |" for name in BASELINES]
    return "\n".join(lines)


def section() -> str:
    """The section of the page."""
    own = ", ".join(f"{name}: {' '.join(settings)}" for name, settings in OWN.items())
    return f"""\
{HEADING}

Written by `python scripts/results.py`. Every preset of `conf/algorithm/` with the same budget: all-MiniLM-L6-v2,
{UPDATES} meta-updates of {META_BATCH} episodes,
outer.lr={RATE:g} ({own}, because it trains only its LoRA matrices), all other settings as in the preset;
one training seed. Accuracy over {EPISODES} episodes in each tested domain, the same for all methods, with 95% intervals over domains
and episodes. The gain is the paired difference from the same method without meta-training. The tested domains are the
meta-validation domains of each distribution; its meta-test domains are not used here. Losses are means over the last five
meta-updates.

The tables compare methods after {UPDATES * META_BATCH} meta-training episodes. That is few: the tables do not judge
methods that need longer training. The presets are not tuned to these tasks. Findings of the run of November 2026:

- On `reviews` the frozen encoder is at chance, and most methods reach about 62; their differences are too small for a ranking.
  Methods that adapt or train few parameters (BOIL and CAVIA with saturated prototypes, LoRA) or need more updates
  (Reptile, LEOPARD with its generator trained from scratch) have barely started to learn. Joint training learns the training domains only.
- On CLINC150 the frozen encoder is already good. With this few episodes only iMAML improves, whose prototypes start from a lower score.
- With one text per class, prototypes at `algorithm.head_scale=1` fit the support set without adaptation, so all methods that start
  from prototypes score exactly as ProtoNet.

{table("reviews")}

{table("clinc150")}
"""


def main(arguments: list[str]) -> None:
    if arguments != ["--write"]:
        for distribution in DISTRIBUTIONS:
            for method in methods():
                run(distribution, method, arguments)
    put_section(PAGE, HEADING, section())


if __name__ == "__main__":
    main(sys.argv[1:])
