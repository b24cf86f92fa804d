import pytest

from metatrain.tracking.metrics import MetricsLog, read_metrics


def test_a_resumed_log_continues_where_the_checkpoint_was_taken(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write(step=1, split="meta_train", loss=0.5)
    position = log.position()
    log.write(step=2, split="meta_train", loss=0.4)
    log.close()
    again = MetricsLog(path, position)
    again.write(step=2, split="meta_train", loss=0.3)
    again.close()
    assert [record["loss"] for record in read_metrics(path)] == [0.5, 0.3]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2')
    assert read_metrics(path) == [{"step": 1}]
    assert read_metrics(tmp_path / "nothing") == []


@pytest.mark.parametrize("length", [3, 5000, 9000])
def test_a_line_that_was_cut_short_does_not_spoil_the_next(tmp_path, length):
    path = tmp_path / "timings.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "x": "' + b"a" * length)
    log = MetricsLog(path)
    log.write(step=3)
    log.close()
    assert [record["step"] for record in read_metrics(path)] == [1, 3]


def test_a_first_line_that_was_cut_short(tmp_path):
    path = tmp_path / "timings.jsonl"
    path.write_bytes(b'{"st')
    log = MetricsLog(path)
    log.write(step=1)
    log.close()
    assert read_metrics(path) == [{"step": 1}]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(step=1, loss=float("nan"), norm=float("inf"), other=0.5)
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None, "norm": None, "other": 0.5}]
