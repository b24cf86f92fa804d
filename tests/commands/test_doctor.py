import re

import pytest

from metatrain.run.diagnosis import Finding


def rows(out: str) -> dict[str, list[float]]:
    cells = (line.strip("│ ").split("│") for line in out.splitlines() if re.match(r"│ \w+ +│ +[\d.]", line))
    return {name.strip(): [float(value) for value in values] for name, *values in cells}


@pytest.mark.nightly
def test_a_resumed_run_is_compared_on_this_machine(cli):
    found = cli("doctor", "model=tiny", "algorithm=anil", "inner.steps=1", "hardware.threads=1")
    assert found.code == 0, found.err
    assert found.out.splitlines()[-1] == "ok  resume: a resumed run is bit-identical"


def test_the_modes_are_compared_on_the_users_own_method(cli, monkeypatch):
    monkeypatch.setattr("metatrain.run.diagnosis.resumes_exactly", lambda on_progress: Finding("resume", True, "tried"))
    found = cli("doctor", "model=tiny", "algorithm=protomaml", "inner.steps=2", "hardware.threads=1")
    assert found.code == 0, found.err
    table = rows(found.out)
    for mode in ("exact_recomputed", "forward_over_reverse"):
        assert table[mode][0] < 1e-10 and table[mode][1] == 1.0
    assert table["finite_difference"][0] < 1e-3
    assert table["first_order"][0] > 1e-3
    assert float(re.search(r"query loss: relative error (\S+)", found.out)[1]) < 1e-4
    assert "parameters without a meta-gradient: none" in found.out
    assert [line.split(":")[0] for line in found.out.splitlines()[:3]] == ["ok  torch", "ok  threads", "ok  memory"]
    assert found.out.splitlines()[-1] == "ok  resume: tried"


def test_parameters_without_a_meta_gradient_are_named(cli, monkeypatch):
    """One inner step from a zero head: the first gradient of the encoder is zero, and so is that of its rates."""
    monkeypatch.setattr("metatrain.run.diagnosis.resumes_exactly", lambda on_progress: Finding("resume", True, ""))  # which is tried above
    found = cli("doctor", "model=tiny", "algorithm=metasgd", "inner.steps=1", "hardware.threads=1")
    assert found.code == 0, found.err
    assert "rule.encoder." in found.out.split("parameters without a meta-gradient:")[1]
