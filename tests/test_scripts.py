"""Scripts that others rely on: the data that experiments are made on."""

import json
import subprocess
import sys

from conftest import ROOT, write_jsonl


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
