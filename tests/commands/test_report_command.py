"""`metatrain report`, and the pages that runs make of themselves."""

import json
import shutil

import pytest

from metatrain.errors import UserError
from metatrain.run.atomic import place_for


def test_a_run_gets_its_page_and_images(cli, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    found = cli("report", "run", "images=figures")
    assert found.code == 0, found.err
    assert found.out.splitlines()[0] == "report: run/report.html"
    html = (run / "report.html").read_text()
    mean = json.loads((run / "results.json").read_text())["arms"]["meta_trained"]["mean"]
    assert f"{100 * mean:.1f} ±" in html
    assert {"arms.png", "loss.png", "validation.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}
    found = cli("report", "run", "pictures=former")
    assert found.code == 0 and found.out.splitlines()[0] == "pictures= is now images=; the former name still works"
    assert (tmp_path / "former" / "arms.png").is_file()


def test_runs_make_their_own(cli, tiny_run, examples):
    settings = ["evaluation.shots=[2]", "evaluation.episodes=2", "evaluation.queries=4", "hardware.threads=1"]
    assert cli("train", "debug=fast", "report=true", "validation.every=3", "algorithm=metasgd", *settings, "hydra.run.dir=trained").code == 0
    assert cli("evaluate", "checkpoint=trained", *settings, "hydra.run.dir=evaluated").code == 0
    assert cli("finetune", "checkpoint=trained", f"data.train={examples}", f"data.test={examples}", "hardware.threads=1", "hydra.run.dir=finetuned").code == 0
    from pathlib import Path

    from metatrain.report.charts import charts
    from metatrain.report.record import read

    keys = {name: [chart.key for chart in charts(read(Path(name)))] for name in ("trained", "evaluated", "finetuned")}
    assert keys["trained"] == ["arms", "steps", "tasks", "confusion", "validation", "loss", "accuracy", "rates", "map", "speed"]
    assert keys["evaluated"] == ["arms", "steps", "tasks", "confusion", "rates"]
    assert keys["finetuned"] == ["classes", "reliability", "confusion"]
    assert all(Path(name, "report.html").is_file() for name in keys)
    assert "held-out" not in Path("finetuned", "report.html").read_text() and "test examples" in Path("finetuned", "report.html").read_text()


def test_without_it_there_is_none(tiny_run):
    assert not (tiny_run / "report.html").exists() and not (tiny_run / "analysis.json").exists()  # debug=fast


def test_what_it_does_not_understand(cli, tiny_run, tmp_path):
    cases = {
        ("report",): "no run below outputs/ yet",
        ("report", "nowhere"): "nowhere is not a run directory",
        ("report", str(tiny_run), "format=pdf"): "metatrain report has no option format=; it has out= and images=",
        ("report", str(tiny_run), str(tiny_run)): "metatrain compare A B html=FILE",
    }
    (tmp_path / "taken").write_text("")
    for name in ("taken", "taken/figures"):
        cases["report", str(tiny_run), f"images={name}"] = f"images={name}: taken"
    for arguments, words in cases.items():
        found = cli(*arguments)
        assert found.code == 2 and words in found.err and len(found.err.splitlines()) == 1
    assert not (tiny_run / "report.html").exists()


def test_a_file_that_is_cut_short_is_named(cli, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "results.json").write_text('{"arms": ')
    found = cli("report", "run")
    assert found.code == 2 and "run/results.json cannot be read" in found.err
    assert not (run / "report.html").exists()


def test_a_comparison_as_a_page(cli, tiny_run, tmp_path):
    found = cli("compare", str(tiny_run), f"{tiny_run}:prototypes", "html=both.html")
    assert found.code == 0, found.err
    assert found.out.splitlines()[-1] == "page: both.html"
    html = (tmp_path / "both.html").read_text()
    assert "2 runs compared" in html and 'id="chart-tasks"' in html and 'id="chart-validation"' in html


def test_no_page_takes_the_place_of_data_or_of_a_record(cli, tiny_run, examples):
    before = examples.read_bytes(), (tiny_run / "results.json").read_bytes()
    for command in (["report", str(tiny_run), f"out={examples}"], ["compare", str(tiny_run), f"{tiny_run}:prototypes", f"html={examples}"]):
        found = cli(*command)
        assert found.code == 2 and "use a file name that ends in .html" in found.err
    with pytest.raises(UserError, match="is a file of a run"):
        place_for("output", str(tiny_run / "results.json"))
    assert before == (examples.read_bytes(), (tiny_run / "results.json").read_bytes())
