"""Writes docs/mistakes.md: the commonest mistakes and what metatrain answers: python scripts/mistakes_page.py"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import tempfile
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"
HEAD = """\
# Mistakes

The commonest ones, and what is answered: one line that says what is wrong, and what to do. Exit code 2; nothing has been written.
Made by `python scripts/mistakes_page.py`, which makes every one of them.

| what went wrong | command | answer |
|---|---|---|
"""
# What went wrong, and the command.
MISTAKES = [
    ("a command misspelt", "trian +experiment=sentiment_fewshot"),
    ("an experiment misspelt", "train +experiment=sentiment_fewshots"),
    ("a method misspelt", "train algorithm=protomamml"),
    ("a setting that is called otherwise", "train outer.learning_rate=1e-4"),
    ("a `+` too many", "train +seed=1"),
    ("a word where a number belongs", "train outer.steps=many"),
    ("a number that makes no sense", "train inner.lr=-1"),
    ("a space within brackets", "train 'evaluation.shots=[1,' '5]'"),
    ("one value where a list belongs", "train evaluation.shots=5"),
    ("several values without `-m`", "train seed=0,1"),
    ("tasks without a path", "train tasks=files"),
    ("a path that is not there", "train tasks=files tasks.path=my_task/"),
    ("one task of one's own, for meta-training", "train tasks=files tasks.path=examples.csv"),
    ("a column that is called otherwise", "train tasks=files tasks.path=tickets.csv tasks.task=team"),
    ("a row without a label", "finetune checkpoint=tiny data.train=gap.csv"),
    ("examples of one class alone", "finetune checkpoint=tiny data.train=one.csv"),
    ("a file misspelt", "finetune checkpoint=tiny data.train=exampels.csv"),
    ("a column of texts that is called otherwise", "finetune checkpoint=tiny data.train=reviews.csv"),
    ("columns that semicolons separate", "finetune checkpoint=tiny data.train=semicolons.csv"),
    ("a JSON array in place of JSON lines", "finetune checkpoint=tiny data.train=array.json"),
    ("a file for a group of settings", "finetune checkpoint=tiny data=examples.csv"),
    ("a value for a config group", "train outer=300"),
    ("examples left out", "finetune checkpoint=tiny"),
    ("the newest run where there is none yet", "finetune checkpoint=latest data.train=examples.csv"),
    ("a folder that is neither a run nor a model", "finetune checkpoint=. data.train=examples.csv"),
    ("more classes than the tasks have", "train episode.way=5"),
    ("more examples than the tasks have", "train episode.shots=5000"),
    ("several processes for a command of one", "finetune checkpoint=tiny data.train=examples.csv hardware.processes=2"),
    ("a model's own code without a pinned revision", "train model=hub model.name=org/model model.trust_remote_code=true"),
    ("a prediction without a model", "predict text=hello"),
    ("a search of nothing", "sweep"),
    ("a run to go on with that is none", "resume outputs/train/maml"),
]
FILES = {
    "examples.csv": "text,label\nit broke,bad\nI love it,good\n",
    "tickets.csv": "department,text,label\nbilling,I was charged twice,refund\nbilling,where is my bill,question\n",
    "gap.csv": "text,label\nit broke,bad\nI love it,\n",
    "one.csv": "text,label\nit broke,bad\nnever again,bad\n",
    "semicolons.csv": "text;label\nit broke;bad\nI love it;good\n",
    "array.json": '[{"text": "it broke", "label": "bad"},\n {"text": "I love it", "label": "good"}]\n',
    "reviews.csv": "review,label\nit broke,bad\nI love it,good\n",
}


def answers() -> list[str]:
    """What is answered to each mistake, in a folder with nothing but the files."""
    from metatrain.cli import run

    found, before = [], Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for name, content in FILES.items():
                Path(name).write_text(content, encoding="utf-8")
            for what, command in MISTAKES:
                said = io.StringIO()
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                    code = run(shlex.split(command))
                assert code == 2, f"{what}: exit code {code}"
                found.append(said.getvalue().strip())
        finally:
            os.chdir(before)
    return found


def page() -> str:
    rows = [f"| {what} | `metatrain {command}` | {_cell(answer)} |" for (what, command), answer in zip(MISTAKES, answers())]
    return HEAD + "\n".join(rows) + "\n"


def _cell(answer: str) -> str:
    text = answer.removeprefix("metatrain: error: ").replace("|", "\\|")
    return f"`{text}`" if "`" not in text else text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
