"""Compare the recommended recipe with every arm on unseen domains: python scripts/recommended.py [SETTING=VALUE ...]

Writes its section of docs/results.md. Runs that are there already, below outputs/results/recommended, are not repeated. Data sets are read
from the folder METATRAIN_DATA; the arm setfit needs the extra `compare`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from recipe_search import FITTED, FOUND
from results_page import JOINT, ROOT, Run, Section, candidates_table, difference, mean, meta_trained, paired, read_results, table, train, write_page

from metatrain.tracking.metrics import read_metrics

RUNS = ROOT / "outputs" / "results" / "recommended"
HEADING = "## The recommended recipe"
SEEDS = (0, 1, 2)

# Arms that train a model for every episode; on fewer episodes.
SLOW = "[meta_trained,logistic_regression,logistic_regression_with_names,full_finetune,setfit,setfit_with_names,shuffled_labels,names_only]"
FDU = "[meta_trained,no_meta_training,logistic_regression,logistic_regression_with_names,prototypes,names_only,shuffled_labels,joint_logistic_regression]"
REVIEWS = "[meta_trained,no_meta_training,logistic_regression,logistic_regression_with_names,prototypes,names_only,shuffled_labels]"
# Candidates for sentiment_fewshot, tested on its meta-validation domains.
TRIED = {
    "protoanil": ["algorithm=protoanil", "outer.blend=1.0"],
    "lr_1e-4": [],
    "lr_2e-4": ["outer.lr=2e-4", "outer.steps=100"],
    "lr_3e-4": ["outer.lr=3e-4", "outer.steps=100"],
    "blend_0.75": ["outer.lr=2e-4", "outer.steps=100", "outer.blend=0.75"],
}
ON_VALIDATION = [
    *("tasks.meta_test.tasks=[clothing,garden,software]", "tasks.meta_validation.tasks=[delivery]", "validation.every=0"),
    *("evaluation.episodes=40", "evaluation.arms=[meta_trained,no_meta_training,logistic_regression]"),
]
# Candidates for clinc150_cross_domain, tested on its meta-validation domains; one begins with an encoder that was trained on masked words alone.
MASKED_WORDS = RUNS / "clinc150_tried_masked_words"
CLINC150_TRIED = {
    "as_it_is": [],
    "pooling_first": ["model.pooling=first"],
    "contrastive": ["algorithm.contrastive=supervised"],
    "warm_start": ["model=hub", f"model.name={MASKED_WORDS / 'model'}", "model.normalize=true"],
}
CLINC150_ON_VALIDATION = [
    *("tasks.meta_test.tasks=[small_talk,work]", "tasks.meta_validation.tasks=[]", "validation.every=0"),
    *("evaluation.arms=[meta_trained,no_meta_training]", "report=false"),
]
TRAINING_DOMAINS = "[auto_and_commute,banking,credit_cards,home,kitchen_and_dining,utility]"
ON_MASKED_WORDS = [
    *("tasks=clinc150", "tasks.name=clinc150_unlabelled", "tasks.masked_words.share=1.0", "tasks.masked_words.words=2000"),
    *(f"tasks.meta_train.tasks={TRAINING_DOMAINS}", "tasks.meta_validation.tasks=[]", "tasks.meta_test.tasks=[small_talk,work]"),
    *("tasks.meta_test.files=[train.jsonl,valid.jsonl,test.jsonl]", "evaluation.way=5", "evaluation.episodes=5", "report=false"),
    "evaluation.arms=[meta_trained,no_meta_training]",
]
ALL = "[meta_trained,no_meta_training,logistic_regression,logistic_regression_with_names,prototypes,names_only]"
# Candidates for clinc150_all, tested on its validation file.
ALL_TRIED = {
    "as_it_is": [],
    "lr_3e-5": ["outer.lr=3e-5"],
    "shots_1": ["episode.shots=1", "episode.queries=4"],
    "dropout_0.1": ["algorithm.dropout=0.1"],
    "contrastive": ["algorithm.contrastive=supervised"],
    "blend_1.0": ["outer.blend=1.0"],
    "way_150": ["episode.way=150", "outer.meta_batch=1", "outer.blend=1.0"],
}
ALL_ON_VALIDATION = ["tasks.meta_test.files=[clinc150/valid.jsonl]", "tasks.meta_validation.tasks=[]", "evaluation.arms=[meta_trained]"]
# The whole encoder trained on the examples, when the model is used.
ALL_FITTED = [
    *(f"checkpoint={RUNS / 'clinc150_valid_as_it_is'}", "tasks=clinc150_all_5", *ALL_ON_VALIDATION, "inner.fit_encoder=true"),
    *("evaluation.way=150", "evaluation.shots=[5]", "evaluation.episodes=1", "evaluation.queries=null", "report=false"),
]
TEN = ["tasks=clinc150_all_10", "evaluation.shots=[10]"]
# FDU-MTL: with texts as short as elsewhere, and longer training; longer texts when that model is used; all the examples that its test domains have.
SHORT = 128
LONGER_STEPS = 600
LONGER = [
    *(f"model.max_length={SHORT}", f"outer.steps={LONGER_STEPS}", "validation.every=60"),
    "evaluation.arms=[meta_trained,logistic_regression,names_only,shuffled_labels]",
]
LENGTHS = (SHORT, 256, 512)
OTHER_TEXTS = [  # of the meta-validation domains
    *("tasks=fdu_mtl", "tasks.meta_test.files=[test.jsonl.gz]", "tasks.meta_test.support_files=[]", "tasks.meta_test.tasks=[baby,camera_photo]"),
    *("evaluation.shots=[5]", "evaluation.episodes=20", "evaluation.queries=null", "evaluation.arms=[meta_trained,names_only]", "report=false"),
]
AGAIN = [
    *("evaluation.shots=[5,1]", "evaluation.episodes=10", "evaluation.queries=null", "report=false"),
    "evaluation.arms=[meta_trained,names_only,logistic_regression,shuffled_labels]",
]
MANY_EXAMPLES = 400
ALL_EXAMPLES = [
    *(f"evaluation.shots=[{MANY_EXAMPLES}]", "evaluation.episodes=1", "evaluation.queries=null"),
    *("evaluation.arms=[meta_trained]", "inner.fit_encoder=true", "report=false"),
]
FDU_SLOW = [
    *("evaluation.shots=[5]", "evaluation.episodes=3", "evaluation.queries=100", "report=false"),
    "evaluation.arms=[meta_trained,logistic_regression,full_finetune,setfit,setfit_with_names]",
]
VARIANTS = ("01", "02", "03", "04", "05")  # of the class splits
NAMED = "[meta_trained,no_meta_training,logistic_regression,logistic_regression_with_names,prototypes]"
UNNAMED = "[meta_trained,no_meta_training,logistic_regression]"
WITH_NAMES = {
    "meta_trained": "meta-trained",
    "no_meta_training": "without meta-training",
    "logistic_regression_with_names": "logistic regression, with names",
    "logistic_regression": "logistic regression",
}
WITHOUT_NAMES = {"meta_trained": "meta-trained", "no_meta_training": "without meta-training", "logistic_regression": "logistic regression"}
SLOW_5 = "[meta_trained,logistic_regression,full_finetune,setfit]"
WAY = ["evaluation.way=5", "evaluation.queries=20"]


INTRODUCTION = """\
Written by `python scripts/recommended.py`; runs of November 2026, all-MiniLM-L6-v2 (22.7M parameters). `algorithm=recommended` combines:

- cosine prototypes with the label name as one more example per class (`algorithm.label_names`);
- weight interpolation (WiSE-FT): 0.6 of the way from the initial to the trained encoder (`outer.blend`);
- a head fitted to the support set if it has at least two examples per class (`inner.fit_head`).

All arms start from the same encoder and see the same episodes. Intervals are 95%, over tasks and episodes within tasks."""


def joint_run(name: str) -> str:
    return f"evaluation.joint={RUNS / f'{name}_joint'}"


def cross_domain() -> str:
    return f"""\
1-shot, training seed 0, 50 episodes per domain:

{table(RUNS / "clinc150_cross_domain_0", "1", seconds=True)}

2-shot:

{table(RUNS / "clinc150_cross_domain_0", "2", seconds=True)}

Three training seeds (episodes differ with the seed), 1-shot:

{seeds_table("clinc150_cross_domain", "1")}

2-shot:

{seeds_table("clinc150_cross_domain", "2")}

Arms that train a model per episode, 10 episodes per domain, 1-shot:

{table(RUNS / "clinc150_slow", "1", seconds=True)}

2-shot:

{table(RUNS / "clinc150_slow", "2", seconds=True)}

5-shot, 8 episodes per domain:

{table(RUNS / "clinc150_slow_5", "5", seconds=True)}

Adaptation times: one thread, another run on the other core."""


def error_reduction(arms: dict[str, dict[str, Any]]) -> float:
    """Return the relative error reduction of the meta-trained arm over logistic regression."""
    return 1 - (1 - arms["meta_trained"]["mean"]) / (1 - arms["logistic_regression"]["mean"])


def seeds_table(experiment: str, shots: str) -> str:
    """Return a row per training seed: the recipe, logistic regression, and the error reduction relative to it."""
    lines = [
        "| training seed | meta-trained | logistic regression | logistic regression, with names | error reduction vs logistic regression |",
        "|---|---|---|---|---|",
    ]
    gone = []
    for seed in SEEDS:
        arms = read_results(RUNS / f"{experiment}_{seed}")["by_shots"][shots]["arms"]
        ours, theirs, names = (arms[arm]["mean"] for arm in ("meta_trained", "logistic_regression", "logistic_regression_with_names"))
        gone.append(error_reduction(arms))
        lines.append(f"| {seed} | {100 * ours:.1f} | {100 * theirs:.1f} | {100 * names:.1f} | {100 * gone[-1]:.0f}% |")
    lines.append(f"| mean | | | | {100 * np.mean(gone):.0f}% |")
    return "\n".join(lines)


def setfit_at_one_shot() -> str:
    return f"""\
Training seed 0, 1-shot, all 50 episodes per domain (the table above uses 10):

{table(RUNS / "clinc150_setfit", "1", seconds=True)}"""


def all_intents_table() -> str:
    """Arms on all 150 intents, without intervals: there is one support set, and the file of queries is what it is."""
    arms = {shots: read_results(RUNS / f"clinc150_all_{shots}_0")["by_shots"][shots]["arms"] for shots in ("5", "10")}
    lines = ["| arm | accuracy, 5-shot | calibration error, 5-shot | accuracy, 10-shot | calibration error, 10-shot |", "|---|---|---|---|---|"]
    for name in sorted(arms["5"], key=lambda name: -arms["5"][name]["mean"]):
        cells = [f"{100 * arms[shots][name][key]:.1f}" for shots in ("5", "10") for key in ("mean", "calibration_error")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def all_tried() -> str:
    scores = {name: _meta_trained(f"clinc150_valid_{name}", "5") for name in (*ALL_TRIED, "encoder")}
    settings = {**ALL_TRIED, "encoder": ["inner.fit_encoder=true"]}
    return ", ".join(f"`{' '.join(settings[name]) or 'unchanged'}` {score:.1f}" for name, score in scores.items())


def _meta_trained(run: str, shots: str) -> float:
    """Its accuracy in percent."""
    return 100 * read_results(RUNS / run)["by_shots"][shots]["arms"]["meta_trained"]["mean"]


def all_intents() -> str:
    return f"""\
Training seed 0, official test file, meta-trained on these 750 or 1,500 examples only:

{all_intents_table()}

Training seeds 1 and 2 of `meta_trained`: {seeds_of_all("5")} (5-shot), {seeds_of_all("10")} (10-shot).

Published results (5-shot, 10-shot) of encoders with 110M to 355M parameters: DNNC 91.0, 93.8 (Zhang et al. 2020), CPFT 92.3, 94.2
(Zhang et al. 2021), ICDA 92.6, 94.8 (Lin et al. 2023).
This encoder has 22M parameters and is **behind them** by at least 1.5 points at 5 shots and 2.0 at 10 shots. Candidates on the validation file,
5-shot (differences of 0.5 are within noise): {all_tried()}.
No candidate improves on it. More training on the texts of the support set is harmful: after a quarter of the updates they are all classified
correctly. `inner.fit_encoder` chose zero updates."""


def seeds_of_all(shots: str) -> str:
    return " and ".join(f"{_meta_trained(f'clinc150_all_{shots}_{seed}', shots):.1f}" for seed in SEEDS[1:])


def fdu_table(shots: str) -> str:
    """One line a training seed: what matters of unseen review domains."""
    arms = ("meta_trained", "joint_logistic_regression", "names_only", "shuffled_labels", "no_meta_training", "logistic_regression")
    lines = [f"| training seed | {' | '.join(f'`{arm}`' for arm in arms)} | error reduction vs logistic regression | gain over joint training |"]
    lines.append(f"|---|{'---|' * (len(arms) + 2)}")
    for seed in SEEDS:
        part = read_results(RUNS / f"fdu_leave_domains_out_{seed}")["by_shots"][shots]
        means = {arm: part["arms"][arm]["mean"] for arm in arms}
        gone = error_reduction(part["arms"])
        against = next(difference(each) for each in part["comparisons"] if each["against"] == "joint_logistic_regression")
        lines.append(f"| {seed} | {' | '.join(f'{100 * mean:.1f}' for mean in means.values())} | {100 * gone:.0f}% | {against} |")
    return "\n".join(lines)


def domains() -> str:
    return f"""\
Training seed 0; 10 support sets per domain, the complete test file as queries. 5-shot:

{table(RUNS / "fdu_leave_domains_out_0", "5")}

1-shot:

{table(RUNS / "fdu_leave_domains_out_0", "1")}

Three training seeds (one for joint training), 5-shot:

{fdu_table("5")}

1-shot:

{fdu_table("1")}

Label names alone do as well as examples: every domain is the same task, and the model learned it in meta-training."""


def more_of_it() -> str:
    def both(name: str) -> str:
        return f"{mean(meta_trained(RUNS / name, '5'))}, {mean(meta_trained(RUNS / name, '1'))}"

    def validation(name: str) -> list[dict[str, Any]]:
        return [event for event in read_metrics(RUNS / name / "metrics.jsonl") if event["split"] == "meta_validation"]

    curve = validation("fdu_longer")
    chosen = max(event["accuracy"] for event in validation("fdu_leave_domains_out_0"))
    early, late = (max(event["accuracy"] for event in curve if event["step"] <= steps) for steps in (180, LONGER_STEPS))
    lengths = ", ".join(f"{length} tokens {mean(meta_trained(RUNS / f'fdu_valid_length_{length}', '5'))}" for length in LENGTHS)
    many = f"{MANY_EXAMPLES} examples, whole encoder finetuned"
    rows = {
        f"5 examples, {SHORT} tokens, {LONGER_STEPS} updates": ("fdu_longer", "5"),
        "the same model with 256 tokens": ("fdu_longer_256", "5"),
        "5 examples, trained with 256 tokens, as above": ("fdu_leave_domains_out_0", "5"),
        many: ("fdu_all_examples", str(MANY_EXAMPLES)),
    }
    found = {what: meta_trained(RUNS / name, shots) for what, (name, shots) in rows.items()}
    tasks = list(next(iter(found.values()))["per_task"])
    lines = [f"| examples per class, setting | {' | '.join(tasks)} | mean |", f"|---|{'---|' * (len(tasks) + 1)}"]
    lines += [f"| {what} | {' | '.join(mean(each['per_task'][task]) for task in tasks)} | {mean(each)} |" for what, each in found.items()]
    return f"""\
Attempts to reach the target of 70% fewer errors than logistic regression (88 points), training seed 0. The meta-validation domains decided:

- **Longer training** with texts of {SHORT} tokens, {LONGER_STEPS} updates instead of 180:
  on the meta-validation domains {100 * late:.1f} instead of {100 * early:.1f}, on the test domains {both("fdu_longer")} (5-shot, 1-shot).
- **Longer texts at test time**, same model: 5-shot on the test files of the two meta-validation domains
  {lengths}; on the test domains with 256 {both("fdu_longer_256")}.
  The runs above therefore train with 256 tokens and 400 updates ({100 * chosen:.1f} on the meta-validation domains,
  {both("fdu_leave_domains_out_0")} on the test domains).
- **Many examples**, {MANY_EXAMPLES} per class, on which `inner.fit_encoder` finetunes the whole encoder of the run above: an upper bound for this
  encoder.

{chr(10).join(lines)}

Even {2 * MANY_EXAMPLES} labelled examples of the domain itself reach a mean of only {mean(found[many])}: the target is out of reach for
this encoder. A larger one was not tried.

Arms that train a model per episode, compared with the model of the run above; 5-shot, three support sets per domain, 100 queries per class:

{table(RUNS / "fdu_slow", "5", seconds=True)}"""


def splits_table(run: str, columns: dict[str, str]) -> str:
    """Accuracies of arms, which are the columns, in the class splits, and their means."""
    found = {variant: read_results(RUNS / f"{run}_{variant}") for variant in VARIANTS}
    lines = [f"| shots, split | {' | '.join(columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for shots in ("1", "5"):
        rows = {variant: [100 * results["by_shots"][shots]["arms"][arm]["mean"] for arm in columns] for variant, results in found.items()}
        for variant, row in [*rows.items(), ("mean", np.mean(list(rows.values()), axis=0))]:
            lines.append(f"| {shots}, {variant} | {' | '.join(f'{value:.2f}' for value in row)} |")
    return "\n".join(lines)


def class_splits() -> str:
    return f"""\
Five splits of the 150 intents into 50 each for training, validation and test (Dopierre et al. 2021); 600 test episodes with 5 queries per class, one
training seed per split. The settings are those of `clinc150_cross_domain`, not tuned to these splits. Accuracy in percent:

{splits_table("clinc150_splits", WITH_NAMES)}"""


def unnamed_splits() -> str:
    return f"""\
Published results do not use label names. The same runs without them (`algorithm.label_names=false`):

{splits_table("clinc150_splits_unnamed", WITHOUT_NAMES)}"""


def reviews() -> str:
    return f"""\
Training seed 0, 25 episodes per domain. 5-shot:

{table(RUNS / "sentiment_fewshot_0", "5")}

1-shot:

{table(RUNS / "sentiment_fewshot_0", "1")}

Three training seeds, 5-shot:

{seeds_table("sentiment_fewshot", "5")}

1-shot:

{seeds_table("sentiment_fewshot", "1")}

Every domain is the same task with the same label names, so label names alone do as well as examples; in seed 1 the examples make the score
worse. Candidates on the meta-validation domains, 40 episodes each:

{candidates_table(RUNS, "reviews", TRIED, ("1", "5"))}"""


def searched() -> str:
    """What was tried on meta-validation tasks, by scripts/recipe_search.py."""
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    fitted = found["clinc150"].pop("fitted")
    at = "; ".join(f"{shots} shots {scores['fitted']:.1f} and {scores['prototypes']:.1f}" for shots, scores in fitted.items())
    return f"""\
Measured by `python scripts/recipe_search.py`, one training seed each: accuracy of cosine prototypes computed from examples, from examples and label
names ("with names"), or from label names only ("names"). The columns are interpolation coefficients between the initial and the trained encoder
(`outer.blend`; 1.0: the trained encoder). Candidates with "names" are trained with label names.

CLINC150, domains `small_talk` and `work`, 5-way, 200 episodes each; each cell: 1-shot, 2-shot accuracy:

{_candidates(found["clinc150"], ("1", "2"), ("examples", "with names"))}

- **Meta-training alone is not enough**: two of the five candidates end below the initial encoder, the others less than two points above it,
  because 90 intents are quickly memorised. Weight interpolation keeps both the gain and the prior knowledge: a coefficient of 0.5 or 0.75
  is best, 0.25 or 0.5 for the candidate with the high learning rate.
- The label name is worth about one additional example.
- A fitted head versus the prototypes that initialise it (blend {FITTED[1]}, with names, {FITTED[3]} episodes in each domain): {at}.

FDU-MTL, domains `baby` and `camera_photo`, 500 texts each, 40 support sets, texts truncated to 96 tokens; each cell: 1-shot, 5-shot accuracy:

{_candidates(found["fdu_mtl"], ("1", "5"), ("examples", "with names", "names"))}

- The initial encoder does not know sentiment, so there is little prior knowledge to keep: coefficients below 0.75 are worse.
- Joint training is as good as meta-training here, and models trained with label names need no examples: every task is the same task.
"""


def also_tried() -> str:
    what = {
        "as_it_is": "unchanged",
        "pooling_first": "`model.pooling=first`",
        "contrastive": "`algorithm.contrastive=supervised`",
        "warm_start": "initial encoder pre-trained with SMLMT: 150 updates on masked words of the training domains' texts",
    }
    lines = ["| candidate | meta-trained, 1-shot | meta-trained, 2-shot | initial encoder, 1-shot | initial encoder, 2-shot |", "|---|---|---|---|---|"]
    for name in CLINC150_TRIED:
        parts = [read_results(RUNS / f"clinc150_tried_{name}")["by_shots"][shots]["arms"] for shots in ("1", "2")]
        cells = [mean(part[arm]) for arm in ("meta_trained", "no_meta_training") for part in parts]
        lines.append(f"| {what[name]} | {' | '.join(cells)} |")
    against = [paired(RUNS / f"clinc150_tried_{name}", RUNS / "clinc150_tried_as_it_is", "1") for name in ("pooling_first", "contrastive", "warm_start")]
    return f"""\
`clinc150_cross_domain` on its meta-validation domains, 50 episodes each, training seed 0:

{chr(10).join(lines)}

Differences from unchanged, 1-shot, in the order of the rows: {"; ".join(against)}. Distillation was not tried, because no larger encoder was available."""


def _candidates(found: dict[str, dict[str, Any]], shots: tuple[str, str], kinds: tuple[str, ...]) -> str:
    """A line for each candidate, and one for the encoder before meta-training; the columns are blends."""

    def cell(scores: dict[str, Any], kind: str) -> str:
        return ", ".join(f"{scores[count][kind]:.1f}" for count in shots)

    before = found["before"]
    rest = {name: blends for name, blends in found.items() if name != "before"}
    shares = list(next(iter(rest.values())))
    lines = [f"| candidate | prototypes from | {' | '.join(f'blend {share}' for share in shares)} |", f"|---|---|{'---|' * len(shares)}"]
    for kind in kinds:
        lines.append(f"| before meta-training: {cell(before, kind)} | {kind} |{' |' * len(shares)}")
        lines += [f"| {name} | {kind} | {' | '.join(cell(blends[share], kind) for share in shares)} |" for name, blends in rest.items()]
    return "\n".join(lines)


def seeds(experiment: str, *settings: str) -> dict[str, Run]:
    return {f"{experiment}_{seed}": train(experiment, f"seed={seed}", *settings) for seed in SEEDS}


SETFIT = [
    *(f"checkpoint={RUNS / 'clinc150_setfit_base'}", *WAY, "evaluation.shots=[1]", "evaluation.episodes=50"),
    *("evaluation.arms=[meta_trained,setfit,setfit_with_names]", "report=false"),
]
TRAINED = [f"checkpoint={RUNS / 'clinc150_cross_domain_0'}", *WAY]
SECTIONS = [
    Section(
        "CLINC150, two unseen domains, 5-way",
        cross_domain,
        {
            "clinc150_cross_domain_joint": train("clinc150_cross_domain", *JOINT),
            **seeds("clinc150_cross_domain", joint_run("clinc150_cross_domain")),
            "clinc150_slow": Run("evaluate", [*TRAINED, "evaluation.shots=[1,2]", "evaluation.episodes=10", f"evaluation.arms={SLOW}"]),
            "clinc150_slow_5": Run("evaluate", [*TRAINED, "evaluation.shots=[5]", "evaluation.episodes=8", f"evaluation.arms={SLOW_5}"]),
        },
    ),
    Section(
        "CLINC150, two unseen domains, SetFit at 1 shot",
        setfit_at_one_shot,
        {
            "clinc150_setfit_base": train("clinc150_cross_domain", "evaluation.arms=[meta_trained]", "report=false"),
            "clinc150_setfit": Run("evaluate", SETFIT),
        },
    ),
    Section(
        "CLINC150, all 150 intents from 5 or 10 examples per intent (`clinc150_all`)",
        all_intents,
        {
            **{f"clinc150_valid_{name}": train("clinc150_all", *ALL_ON_VALIDATION, *settings) for name, settings in ALL_TRIED.items()},
            "clinc150_valid_encoder": Run("evaluate", ALL_FITTED),
            "clinc150_all_5_0": train("clinc150_all", f"evaluation.arms={ALL}"),
            "clinc150_all_10_0": train("clinc150_all", *TEN, f"evaluation.arms={ALL}"),
            **{f"clinc150_all_5_{seed}": train("clinc150_all", f"seed={seed}", "evaluation.arms=[meta_trained]") for seed in SEEDS[1:]},
            **{f"clinc150_all_10_{seed}": train("clinc150_all", *TEN, f"seed={seed}", "evaluation.arms=[meta_trained]") for seed in SEEDS[1:]},
        },
    ),
    Section(
        "FDU-MTL, four unseen review domains",
        domains,
        {
            "fdu_leave_domains_out_joint": train("fdu_leave_domains_out", *JOINT),
            **seeds("fdu_leave_domains_out", joint_run("fdu_leave_domains_out"), f"evaluation.arms={FDU}"),
        },
    ),
    Section(
        "FDU-MTL: more training, more examples",
        more_of_it,
        {
            "fdu_longer": train("fdu_leave_domains_out", *LONGER),
            **{
                f"fdu_valid_length_{length}": Run("evaluate", [f"checkpoint={RUNS / 'fdu_longer'}", *OTHER_TEXTS, f"model.max_length={length}"])
                for length in LENGTHS
            },
            "fdu_longer_256": Run("evaluate", [f"checkpoint={RUNS / 'fdu_longer'}", "model.max_length=256", *AGAIN]),
            "fdu_slow": Run("evaluate", [f"checkpoint={RUNS / 'fdu_leave_domains_out_0'}", *FDU_SLOW]),
            "fdu_all_examples": Run("evaluate", [f"checkpoint={RUNS / 'fdu_leave_domains_out_0'}", *ALL_EXAMPLES]),
        },
    ),
    Section(
        "CLINC150, class splits of ProtAugment, 5-way (`clinc150_splits`)",
        class_splits,
        {f"clinc150_splits_{variant}": train("clinc150_splits", f"tasks.variant='{variant}'", f"evaluation.arms={NAMED}") for variant in VARIANTS},
    ),
    Section(
        "CLINC150, class splits of ProtAugment, without label names",
        unnamed_splits,
        {
            f"clinc150_splits_unnamed_{variant}": train(
                "clinc150_splits", f"tasks.variant='{variant}'", f"evaluation.arms={UNNAMED}", "algorithm.label_names=false"
            )
            for variant in VARIANTS
        },
    ),
    Section(
        "Short reviews, four unseen domains, 2-way (`sentiment_fewshot`)",
        reviews,
        {
            **{f"reviews_{name}": train("sentiment_fewshot", *ON_VALIDATION, *settings) for name, settings in TRIED.items()},
            **seeds("sentiment_fewshot", f"evaluation.arms={REVIEWS}"),
        },
    ),
    Section("Search for the recipe on meta-validation tasks", searched, made=[str(FOUND)]),
    Section(
        "Pooling, contrastive loss, SMLMT initialisation",
        also_tried,
        {
            "clinc150_tried_masked_words": train("smlmt", *ON_MASKED_WORDS),
            **{f"clinc150_tried_{name}": train("clinc150_cross_domain", *CLINC150_ON_VALIDATION, *settings) for name, settings in CLINC150_TRIED.items()},
        },
    ),
]

if __name__ == "__main__":
    write_page(__doc__, HEADING, INTRODUCTION, RUNS, SECTIONS)
