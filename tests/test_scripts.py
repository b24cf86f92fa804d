"""Scripts that others rely on: the data that experiments are made on."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, write_jsonl

from metatrain.tasks.encoded_episode import raw_texts
from metatrain.tasks.episode_file import read_episodes


def test_pairs_are_of_one_intent_or_of_two_and_the_same_every_time(tmp_path):
    intents = {f"{domain} {number}": domain for domain in ("a", "b") for number in range(4)}
    rows = [{"text": f"{intent} text {n}", "label": intent, "domain": domain} for intent, domain in intents.items() for n in range(10)]
    for name in ("train", "valid", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows if name == "train" else [])
    script = [sys.executable, ROOT / "scripts" / "data" / "pairs.py", "--intents", tmp_path, "--rows", "20"]
    for folder in ("one", "again"):
        subprocess.run([*script, tmp_path / folder], check=True)
    for domain in ("a", "b"):
        lines = (tmp_path / "one" / f"{domain}.jsonl").read_text()
        assert lines == (tmp_path / "again" / f"{domain}.jsonl").read_text()
        pairs = [json.loads(line) for line in lines.splitlines()]
        of_label = {label: [pair for pair in pairs if pair["label"] == label] for label in ("the same", "different")}
        assert list(map(len, of_label.values())) == [10, 10]
        for label, found in of_label.items():
            texts = [text for pair in found for text in (pair["text"], pair["pair"])]
            assert len(set(texts)) == len(texts)
            alike = {pair["text"].split(" text ")[0] == pair["pair"].split(" text ")[0] for pair in found}
            assert alike == {label == "the same"} and {text[0] for text in texts} == {domain}


def test_nusax_becomes_an_episode_for_each_language(tmp_path):
    labels = ["negative", "neutral", "positive"]
    (tmp_path / "nusax_senti").mkdir()
    for split, numbers in (("train", range(6)), ("valid", range(9, 12)), ("test", range(5, 9))):  # text 5 is in both files
        rows = [
            {"text": f"{labels[n % 3]} {language}\u2028{n}", "label": labels[n % 3], "lang": language} for language in ("english", "javanese") for n in numbers
        ]
        write_jsonl(tmp_path / "nusax_senti" / f"{split}.jsonl", rows)
    script = [sys.executable, ROOT / "scripts" / "data" / "nusax_episodes.py", tmp_path / "episodes.jsonl"]
    done = subprocess.run(script, check=True, env={**os.environ, "METATRAIN_DATA": str(tmp_path)}, capture_output=True, text=True)
    assert done.stdout.endswith("mean: logistic regression on word counts 100.0\n")  # the first word is the label
    file = read_episodes(str(tmp_path / "episodes.jsonl"))
    assert file is not None and list(file.episodes) == [2] and list(file.episodes[2]) == ["english", "javanese"]
    (episode,) = file.episodes[2]["javanese"]
    assert raw_texts(episode).query == [f"{labels[n % 3]} javanese\u2028{n}" for n in (6, 7, 8)] and episode.query_labels.tolist() == [0, 1, 2]
    assert episode.support_labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_the_decoders_of_the_gpu_script_have_the_gradient_of_a_plain_loop(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benchmark"))
    import decoders
    from meta_step import distance

    makers = decoders.makers(decoders.DecoderWork("small", steps=2, episodes=2, length=12, device="cpu"), None)
    plain = makers["plain"]()()
    assert distance(makers["exact"]()(), plain) < 1e-5
    assert distance(makers["first order"]()(), plain) > 1e-3


@pytest.mark.nightly
def test_the_gpu_script_writes_a_line_for_each_row_and_what_it_had_no_time_for():
    script = [sys.executable, ROOT / "scripts" / "benchmark" / "gpu.py", "--small", "--rounds", "1", "--case", "smollm2,3,4", "--only", "exact"]
    machine, row = map(json.loads, subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines())
    assert set(machine["peak_tflops"]) == {"float32", "TF32", "bf16"}
    assert row["gpu_contender"] == "exact" and row["seconds"] > 0 and row["tflop"] > 0
    _, left = map(json.loads, subprocess.run([*script, "--minutes", "0"], check=True, capture_output=True, text=True).stdout.splitlines())
    assert left == {"left_out": ["smollm2,3,4: exact"]}
