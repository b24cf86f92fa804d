from metatrain.tracking.metrics import MetricsLog, read_metrics


def test_a_resumed_log_goes_on_where_the_checkpoint_was_taken(tmp_path):
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
