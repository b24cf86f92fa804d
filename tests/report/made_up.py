"""A run that has everything a report may show, with texts and names that would be markup or code if they were not shown as they are."""

import json
from pathlib import Path

HOSTILE = """</script><script>window.hit = 1</script><img src=x onerror="window.hit = 2"> {{ 7 * 7 }} 'quoted' & "so" """
ARMS = {"meta_trained": 0.8, "prototypes": 0.7}


def results() -> dict:
    """Of two tasks at two numbers of shots."""

    def arm(mean: float) -> dict:
        per_task = {
            name: {"mean": mean + shift, "ci95": 0.02, "balanced": mean, "episodes": 2, "scores": [mean + shift] * 2}
            for name, shift in (("x", 0.1), (HOSTILE, -0.1))
        }
        found = {"mean": mean, "ci95": 0.05, "balanced": mean, "per_task": per_task}
        return {**found, "calibration_error": 0.1, "adapt_seconds_per_episode": 0.01}

    comparison = {"arm": "meta_trained", "against": "prototypes", "difference": 0.1, "ci95": [0.05, 0.15], "verdict": "better"}
    comparison["balanced"] = dict(comparison)
    part = {"arms": {name: arm(mean) for name, mean in ARMS.items()}, "comparisons": [comparison]}
    protocol = {
        "split": "meta_test", "tasks": ["x", HOSTILE], "scores": {"x": "accuracy", HOSTILE: "accuracy"}, "way": 2, "shots": [5, 1], "queries_per_class": 5,
        "episodes_per_task": 2, "seed": 0,
    }  # fmt: skip
    return {"format": 1, "protocol": protocol, **part, "by_shots": {"5": part, "1": part}}


def analysis() -> dict:
    wrong = {"text": HOSTILE, "label": "good", "answer": HOSTILE, "probability": 0.9}
    unsure = {"text": "plain", "label": "good", "answer": "bad", "probability": None}
    pairs = [["good", HOSTILE, 3], [HOSTILE, HOSTILE, 5], ["good", "good", 2]]
    of_x = {"text": "of x", "label": "a", "answer": "b", "probability": 0.6}
    mistakes = [
        {"task": HOSTILE, "labels": ["good", HOSTILE], "pairs": pairs, "examples": [wrong, unsure]},
        {"task": "x", "labels": ["a", "b"], "pairs": [["a", "b", 1], ["b", "b", 1]], "examples": [of_x]},
    ]
    rates = [
        {"parameter": "encoder.backbone.w", "step": None, "mean": 0.02, "low": 0.01, "high": 0.04, "began": 0.01},
        {"parameter": "head.bias", "step": None, "mean": 0.5, "low": 0.5, "high": 0.5, "began": 0.5},
    ]
    return {
        "format": 1,
        "by_steps": {
            "episodes_per_task": 2,
            "steps_used": 2,
            "by_shots": {
                "5": {
                    "steps": {"0": 0.5, "2": 0.8},
                    "losses": {"0": 0.6931, "2": 0.4},
                    "support_steps": {"0": 0.6, "2": 1.0},
                    "support_losses": {"0": 0.5, "2": 0.01},
                    "as_used": 0.8,
                }
            },
        },
        "mistakes": mistakes,
        "rates": rates,
        "task_map": [
            {"task": "x", "split": "meta_test", "x": 0.1, "y": 0.2, "nearest": HOSTILE, "likeness": 0.5},
            {"task": HOSTILE, "split": "meta_train", "x": -0.1, "y": 0.0},
        ],
    }


def run(folder: Path, updates: int = 6) -> Path:
    """The run's directory."""
    folder.mkdir()
    (folder / "config.yaml").write_text("name: made up\ninner: {lr: 0.01, head_lr: 0.5}\ntasks: {path: my tasks}\n")
    (folder / "overrides.yaml").write_text("- inner.lr=0.01\n- tasks.path='my tasks'\n")
    facts = {
        "command": "train",
        "started": "2026-01-02T03:04:05+0000",
        "state": "done",
        "versions": {"metatrain": "1", "torch": "2"},
        "hardware": {"processor": HOSTILE},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "results.json").write_text(json.dumps(results()))
    (folder / "analysis.json").write_text(json.dumps(analysis()))
    lines, timings = [], []
    for step in range(1, updates + 1):
        figures = {"loss_before": 1.0, "loss_after": 1.0 / step, "accuracy_before": 0.5, "accuracy_after": 1 - 0.5 / step}
        lines.append({"step": step, "split": "meta_train", **figures, "gradient_norm": 1.0})
        timings.append({"step": step, "split": "meta_train", "seconds": 0.5, "peak_memory_mb": 100 + step})
        if step % 3 == 0:
            scores = {"accuracy": 0.5 + 0.01 * step, "accuracy_with_shuffled_labels": 0.5}
            lines.append({"step": step, "split": "meta_validation", **scores, "best_step": step, "per_task": {}})
    for name, rows in (("metrics", lines), ("timings", timings)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
