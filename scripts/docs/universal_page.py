"""Write docs/universal.md: the data sets of `tasks=universal`, from their files in conf/tasks/universal/.

python scripts/docs/universal_page.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "universal.md"
SETS = ROOT / "conf" / "tasks" / "universal"
_HEAD_OF_SET = re.compile(r"# @package tasks\.sources\.\w+\n# (.*)\n# Hub name(?:, not tried here)?: (.*)\.\n")
_MOST_LABELS = 10  # maximum number of labels listed
HEAD = """\
# The `universal` task distribution

`tasks=universal` trains one base (an encoder to finetune from) on many task families: {kinds} families in five folds, and {validation} sets for
meta-validation, which are never trained or tested on. Related questions stand in the same fold.

```bash
export METATRAIN_DATA=FOLDER                                    # a folder with a folder for each set
metatrain tasks tasks=universal tasks.fold=1                    # show the tasks
metatrain train +experiment=universal tasks.fold=1              # train on the folds 2 to 5, test on fold 1
metatrain train +experiment=universal                           # train on all folds: the base to use
metatrain finetune checkpoint=latest data.train=examples.csv    # adapt it to a task of your own
metatrain train +experiment=universal tasks=universal_permissive tasks.fold=1
```

`tasks=universal_permissive` has only the sets with "yes" in the column *permissive*: their licence is stated and allows commercial use. Some of these
licences ask for attribution, or for sharing under the same licence. The licences are those that each set's source states; check them before you pass a
model on.

## Prepare the data

A set is a folder of JSON lines, `train.jsonl` and `test.jsonl` (or one file `all.jsonl`, or only `test.jsonl` for `agnews_test`), each also as `.jsonl.gz`.
A row has the fields `text` and `label`, text pairs also `text_pair`, sets of several tasks also `task` or `domain`. Support examples of test tasks come from
`train`, queries from `test`; training reads only `train`. None of the data comes with metatrain.

- At most 2,000 rows per task are read for support sets and for queries (`tasks.max_rows`), the same in every run.
- Texts that are also in a test or validation task are removed from training (`tasks.overlap=drop`).
- Each set is sampled equally often (`tasks.sample_by=sources`), so that twelve domains of reviews count as one family.
- Each label has a one-sentence definition in its file in `conf/tasks/universal/`. `+experiment=universal` reads names and definitions
  (`tasks.label_text=name_and_definition`); `name` and `definition` choose one of them.

To read a set from the Hub, name it and its columns: `tasks.sources.trec.path=hub:SetFit/TREC-QC tasks.sources.trec.label=label_coarse`, and name the
splits in `tasks.meta_train.files` and `tasks.meta_test.files` (`trec/train`, `trec/test`). The Hub names below were not tried; labels there may be spelled
differently, so `label_descriptions` may have to change.

## Label definitions help where examples are few

On the eight validation sets (`tasks=universal_validation`), with the base `everyday`, the definitions raise accuracy at one example per class by 5.0 points
(95% t interval over the sets [1.3, 8.7]); at five, by 1.5 [-0.6, 3.7], which is not significant:

| label text | label names only | 1-shot | 5-shot |
|---|---|---|---|
| `name` | 40.7 | 42.2 | 51.4 |
| `name_and_definition` | 48.1 | 47.2 | 52.9 |

Each row: `metatrain evaluate checkpoint=everyday tasks=universal_validation tasks.label_text=TEXT inner.fit_head=false evaluation.shots=[1,5]
evaluation.way=..20 evaluation.queries=20 evaluation.episodes=3 evaluation.arms=[meta_trained,no_meta_training,names_only] report=false`.
`evaluation.way=..20` means up to 20 classes. The column "label names only" was measured in the 1-shot episodes. With definitions in meta-training too
(fold 1), validation accuracy is 64.4 instead of 63.1, which is why the experiment reads them.

## What such a base is worth

[Results](results.md#the-task-distribution-universal-each-family-unseen-once): over 38 families, each tested by one of five bases that never saw it,
5-shot balanced accuracy is 61.5%, that of logistic regression on the frozen encoder 56.4 (gain 5.1 [3.0, 7.2]), that of the same inner steps without
meta-training 60.9 (0.6 [-0.8, 2.1]). So most of the gain comes from the adaptation, which `metatrain finetune` makes from any base. With one example
per class, no arm is significantly ahead of label names and definitions without any example.

## The sets

`python scripts/docs/universal_page.py` writes this table from the files in `conf/tasks/universal/`.
"""


def rows() -> list[dict[str, Any]]:
    """Return the settings of each set, with its name, question, Hub name and whether it is in tasks=universal_permissive."""
    permissive = yaml.safe_load((ROOT / "conf" / "tasks" / "universal_permissive.yaml").read_text(encoding="utf-8"))["defaults"]
    found = []
    for path in sorted(SETS.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if head := _HEAD_OF_SET.match(text):
            question, hub = head.groups()
            found.append({**yaml.safe_load(text), "name": path.stem, "question": question, "hub": hub, "permissive": f"universal/{path.stem}" in permissive})
    return sorted(found, key=lambda row: (row.get("in_fold", 9), row["name"]))


def main() -> None:
    sets = rows()
    table = [
        "| fold | set | question | label words | fields | Hub name: columns | licence | permissive | origin |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sets:
        labels = list(row["label_definitions"])
        words = ", ".join(str(label).replace("_", " ") for label in labels[:_MOST_LABELS]) + (f", ... ({len(labels)})" if len(labels) > _MOST_LABELS else "")
        columns = ", ".join(column for column in ("text", row.get("pair"), "label", row.get("task")) if column)
        fold, permissive = row.get("in_fold", "validation"), "yes" if row["permissive"] else "no"
        table.append(f"| {fold} | {row['name']} | {row['question']} | {words} | {columns} | {row['hub']} | {row['licence']} | {permissive} | {row['origin']} |")
    kinds = sum("in_fold" in row for row in sets)
    PAGE.write_text(f"{HEAD.format(kinds=kinds, validation=len(sets) - kinds)}\n{chr(10).join(table)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
