"""Runs the recommended recipe on tasks of other kinds than it was found on: python scripts/transfer.py [SETTING=VALUE ...]

Writes its section of docs/results.md. Runs that are there already, below outputs/results/transfer, are not repeated. Data sets are read from
the folder METATRAIN_DATA.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import none_of_these
from results_page import JOINT, ROOT, Run, Section, candidates_table, is_made, mean, meta_trained, paired, percent, read_results, table, train, write_page

RUNS = ROOT / "outputs" / "results" / "transfer"
HEADING = "## The recommended recipe on other tasks"
INTRODUCTION = """\
Runs by `python scripts/transfer.py` in November 2026, all-MiniLM-L6-v2 and `algorithm=recommended`; arms and intervals as above."""
SEEDS = (0, 1, 2)
ARMS = "[meta_trained,no_meta_training,logistic_regression,logistic_regression_with_names,prototypes,names_only,shuffled_labels]"
JOINTLY = ARMS.replace("]", ",joint_logistic_regression]")
SLOW = ["evaluation.shots=[16]", "evaluation.episodes=5", "evaluation.queries=100", "report=false"]
SLOW_ARMS = "evaluation.arms=[meta_trained,full_finetune,full_finetune_of_trained]"
BESIDE_FULL_FINETUNES = {"mr_subj_trec_slow": Run("evaluate", [f"checkpoint={RUNS / 'mr_subj_trec_transfer_0'}", *SLOW, SLOW_ARMS])}
# Candidates, tested on the meta-validation tasks.
VALIDATION_FILES = "tasks.meta_test.files=[train.jsonl.gz,clinc150/train.jsonl,agnews/*,phrasebank/*]"
SENTENCES_TRIED: dict[str, list[str]] = {"as_it_is": [], "blend_1.0": ["outer.blend=1.0"], "mix_0": ["episode.mix=0"]}
SENTENCES_ON_VALIDATION = [
    *("tasks.meta_validation.tasks=[]", "validation.every=0", VALIDATION_FILES),
    *("tasks.meta_test.support_files=[]", "tasks.meta_test.tasks=[camera_photo,work,agnews,phrasebank]", "evaluation.episodes=8", "report=false"),
    *("evaluation.queries=25", "evaluation.arms=[meta_trained,no_meta_training,logistic_regression_with_names,logistic_regression]"),
]

# What the choice between a head and the whole encoder is worth there; number of examples a class, and of support sets a task.
FIT_ENCODER = "inner.fit_encoder=true"
ENCODER = {"16": 3, "64": 1}
ENCODER_ON_VALIDATION = [
    *(f"checkpoint={RUNS / 'sentences_valid_as_it_is'}", "tasks=mr_subj_trec", "tasks.meta_validation.tasks=[]", "tasks.meta_test.support_files=[]"),
    *(VALIDATION_FILES, "tasks.meta_test.tasks=[camera_photo,agnews,phrasebank]"),
    *("evaluation.queries=50", "evaluation.arms=[meta_trained]", "report=false"),
]


def both(found: Mapping[str, float]) -> str:
    """Accuracy / balanced accuracy."""
    return f"{100 * found['mean']:.1f} / {100 * found['balanced']:.1f}"


def per_task(name: str, shots: str, arms: Sequence[str], cell: Callable[[dict[str, Any]], str] = percent) -> str:
    """A line for each task: what some arms have."""
    found = read_results(RUNS / name)["by_shots"][shots]["arms"]
    lines = [f"| task | {' | '.join(f'`{arm}`' for arm in arms)} |", f"|---|{'---|' * len(arms)}"]
    for task in found[arms[0]]["per_task"]:
        lines.append(f"| {task} | {' | '.join(cell(found[arm]['per_task'][task]) for arm in arms)} |")
    return "\n".join(lines)


def by_seed(experiment: str, shots: Sequence[str], arms: Sequence[str], cell: Callable[[dict[str, Any]], str] = mean) -> str:
    """A line for each number of shots and training seed."""
    lines = [f"| shots, training seed | {' | '.join(f'`{arm}`' for arm in arms)} |", f"|---|{'---|' * len(arms)}"]
    for count in shots:
        for seed in SEEDS:
            found = read_results(RUNS / f"{experiment}_{seed}")["by_shots"][count]["arms"]
            lines.append(f"| {count}, {seed} | {' | '.join(cell(found[arm]) for arm in arms)} |")
    return "\n".join(lines)


def sentences() -> str:
    arms = ("meta_trained", "no_meta_training", "joint_logistic_regression", "logistic_regression_with_names", "logistic_regression")
    return f"""\
Three tasks of sentences, of which meta-training saw nothing: the sentiment of film reviews (MR), opinion or fact (Subj), what a question asks
for (TREC, six classes, the official test file). Meta-training is on ten domains of product reviews and nine of intents. Five support sets a
task, of 16 or 5 examples a class, each with 500 other rows of each class as queries (TREC: the test file). Training seed 0, 16-shot:

{table(RUNS / "mr_subj_trec_transfer_0", "16")}

5-shot:

{table(RUNS / "mr_subj_trec_transfer_0", "5")}

By task, 16-shot:

{per_task("mr_subj_trec_transfer_0", "16", arms)}

5-shot:

{per_task("mr_subj_trec_transfer_0", "5", arms)}

Beside a full finetune, 16-shot, with 100 queries of each class:

{table(RUNS / "mr_subj_trec_slow", "16", seconds=True)}

{per_task("mr_subj_trec_slow", "16", ("meta_trained", "full_finetune", "full_finetune_of_trained"))}

Where meta-training has seen nothing alike (TREC, Subj), 16 examples a class are enough for an encoder that adapts as a whole to do better, in thirty
times the time; the recipe adapts its head alone. A full finetune that begins with the meta-trained encoder keeps most of both; so does
`inner.fit_encoder`, below, which asks the examples first.

Three training seeds (joint training has one):

{by_seed("mr_subj_trec_transfer", ("16", "5"), arms)}

Candidates on the meta-validation tasks (news topics, financial news, one more domain of reviews and one of intents), 8 episodes each:

{candidates_table(RUNS, "sentences_valid", SENTENCES_TRIED, ("16", "5"))}"""


def intents() -> str:
    return f"""\
All 15 intents of a domain at once, as a user has them: the domains `banking` and `credit_cards` of CLINC150; meta-training saw neither, nor any other
of money. Training seed 0, 20 episodes in each, with settings that were found on other domains. 1-shot:

{table(RUNS / "intent_fewshot_0", "1")}

5-shot:

{table(RUNS / "intent_fewshot_0", "5")}

10-shot:

{table(RUNS / "intent_fewshot_0", "10")}

Three training seeds:

{by_seed("intent_fewshot", ("1", "5", "10"), ("meta_trained", "no_meta_training", "logistic_regression_with_names", "logistic_regression"))}"""


def strangers() -> str:
    lines = ["| examples a class | method | texts of the classes lost | out-of-scope texts found | area under the curve |", "|---|---|---|---|---|"]
    for shots, methods in read_results(RUNS / "none_of_these").items():
        for method, found in methods.items():
            lines.append(f"| {shots} | {method} | {100 * found['lost']:.1f}% | {100 * found['found']:.1f}% | {found['auroc']:.3f} |")
    return f"""\
`none_of_these={none_of_these.SHARE}` with the 15 intents of `banking` or `credit_cards`, {none_of_these.DRAWS} support sets each; asked are the domain's
test texts and CLINC150's 1,000 out-of-scope test texts (`python scripts/none_of_these.py RUN` has the details):

{chr(10).join(lines)}

The threshold is set by the examples alone. With one example a class it comes from how an example looks to a class that is known by its name; for logistic
regression there is nothing to set one by. With few examples those of the classes that are lost are more than the 5% that were asked for."""


def find_strangers(settings: Sequence[str]) -> None:
    """What the section on none_of_these is made of."""
    if not is_made(RUNS / "none_of_these"):
        (RUNS / "none_of_these").mkdir()
        (RUNS / "none_of_these" / "results.json").write_text(json.dumps(none_of_these.measure(RUNS / "intent_fewshot_0")))


def whole_encoder() -> str:
    def line(head: str, whole: str, shots: str, task: str) -> str:
        one, other = (meta_trained(RUNS / name, shots)["per_task"][task] for name in (head, whole))
        return f"| {task}, {shots} | {mean(one)} | {mean(other)} | {one['loss']:.3f} | {other['loss']:.3f} |"

    def seconds(name: str, shots: str) -> str:
        return f"{meta_trained(RUNS / name, shots)['adapt_seconds_per_episode']:.0f}"

    top = ["| task, examples a class | head alone | whole encoder | log loss, head alone | log loss, whole encoder |", "|---|---|---|---|---|"]
    chosen = [
        line(f"encoder_valid_head_{shots}", f"encoder_valid_{shots}", shots, task) for shots in ENCODER for task in ("camera_photo", "agnews", "phrasebank")
    ]
    tested = [line("mr_subj_trec_slow", "encoder", "16", task) for task in ("mr", "subj", "trec")]
    differences = ", ".join(f"{shots}-shot {paired(RUNS / f'encoder_valid_{shots}', RUNS / f'encoder_valid_head_{shots}', shots)}" for shots in ENCODER)
    return f"""\
After the head is fitted, the whole encoder goes on from there (Adam, batches of 16), for as many updates as are best on examples left out, none among the
choices. On meta-validation tasks, where the rate was chosen (of 5e-5, 1e-4 and 2e-4, on other support sets); {ENCODER["16"]} support sets
a task with 16 examples a class, {ENCODER["64"]} with 64:

{chr(10).join([*top, *chosen])}

Whole encoder minus head alone: {differences} points of accuracy; it took {" and ".join(seconds(f"encoder_valid_{shots}", shots) for shots in ENCODER)} seconds
a task on one thread, with other work on the other core.

The three tasks of sentences, the support sets that a full finetune was compared on above:

{chr(10).join([*top, *tested])}

Minus head alone: {paired(RUNS / "encoder", RUNS / "mr_subj_trec_slow", "16")}; {seconds("encoder", "16")} seconds a task.

Where the frozen encoder knows the kind of task (MR, and other reviews), nothing is gained, and where it does not, most of what a full finetune has over
the head alone: {mean(meta_trained(RUNS / "encoder", "16"))} over all three tasks is the highest of the arms that were run there, and its calibration error,
{100 * meta_trained(RUNS / "encoder", "16")["calibration_error"]:.1f}, the lowest. Cross-validation on 32 examples can be wrong about it: with one of the three
support sets of `camera_photo` it was. It is off unless it is asked for, since the head alone takes less than a second."""


def reviews() -> str:
    arms = ("meta_trained", "no_meta_training", "names_only", "shuffled_labels", "logistic_regression_with_names", "logistic_regression", "prototypes")
    return f"""\
The published protocol: twelve target tasks, each with one fixed support set of 5 + 5. Accuracy / balanced accuracy, with the rate
and the blend of `fdu_leave_domains_out`:

{by_seed("arsc", ("5",), arms, both)}

Intervals of training seed 0, in accuracy:

{table(RUNS / "arsc_0", "5")}

By task:

{per_task("arsc_0", "5", ("meta_trained", "names_only", "no_meta_training", "logistic_regression"), both)}

Always answering "positive" scores 78.1 / 50.0, a pooled word model that ignores the support set 86.2 / 70.3, and Induction Networks report 85.6
(Geng et al. 2019; balanced accuracy not given). `algorithm=protoanil` with 500 updates, which does not read names, has 65.4 / 65.6 here, while on the
meta-validation tasks it is as good (balanced 83.7 and 83.8): the fixed support sets of three target tasks mislead it. That the recipe took its place
was decided with this known. `arsc_linear` has 85.1 / 80.0."""


def encoder_on_validation(shots: str, *settings: str) -> Run:
    return Run("evaluate", [*ENCODER_ON_VALIDATION, f"evaluation.shots=[{shots}]", f"evaluation.episodes={ENCODER[shots]}", *settings])


SECTIONS = [
    Section(
        "MR, Subj and TREC (`mr_subj_trec_transfer`)",
        sentences,
        {
            **{f"sentences_valid_{name}": train("mr_subj_trec_transfer", *settings, *SENTENCES_ON_VALIDATION) for name, settings in SENTENCES_TRIED.items()},
            "mr_subj_trec_transfer_joint": train("mr_subj_trec_transfer", *JOINT),
            **{
                f"mr_subj_trec_transfer_{seed}": train(
                    "mr_subj_trec_transfer", f"seed={seed}", f"evaluation.arms={JOINTLY}", f"evaluation.joint={RUNS / 'mr_subj_trec_transfer_joint'}"
                )
                for seed in SEEDS
            },
            **BESIDE_FULL_FINETUNES,
        },
    ),
    Section(
        "The whole encoder, trained on the examples (`inner.fit_encoder`)",
        whole_encoder,
        {
            "sentences_valid_as_it_is": train("mr_subj_trec_transfer", *SENTENCES_ON_VALIDATION),
            **{f"encoder_valid_head_{shots}": encoder_on_validation(shots) for shots in ENCODER},
            **{f"encoder_valid_{shots}": encoder_on_validation(shots, FIT_ENCODER) for shots in ENCODER},
            **BESIDE_FULL_FINETUNES,
            "encoder": Run("evaluate", [f"checkpoint={RUNS / 'mr_subj_trec_transfer_0'}", *SLOW, "evaluation.arms=[meta_trained]", FIT_ENCODER]),
        },
    ),
    Section(
        "Intents of two unseen domains, all 15 at once (`intent_fewshot`)",
        intents,
        {f"intent_fewshot_{seed}": train("intent_fewshot", f"seed={seed}", f"evaluation.arms={ARMS}") for seed in SEEDS},
    ),
    Section(
        "Texts of no class (`none_of_these`)",
        strangers,
        {"intent_fewshot_0": train("intent_fewshot", "seed=0", f"evaluation.arms={ARMS}")},
        find_strangers,
        ["none_of_these"],
    ),
    Section(
        "ARSC, by its published protocol (`arsc`)",
        reviews,
        {f"arsc_{seed}": train("arsc", f"seed={seed}", f"evaluation.arms={ARMS}") for seed in SEEDS},
    ),
]

if __name__ == "__main__":
    write_page(__doc__, HEADING, INTRODUCTION, RUNS, SECTIONS)
