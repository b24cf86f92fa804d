"""What holds on an NVIDIA GPU; skipped where there is none."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.cuda_graphs import CudaGraphs
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.encoded_episode import EncodedEpisode

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")

METHODS = [
    {"adapt": "all"},
    {"adapt": "all", "meta_gradient": "first_order"},
    {"adapt": "last_layers", "last_layers": 1, "meta_gradient": "exact_recomputed"},
    {"adapt": "head"},
    {"adapt": "all", "dropout": 0.1},
]
FAST = ["debug=fast", "hardware=gpu", "report=false"]


def learner(device: str, dtype: torch.dtype = torch.float64, **algorithm) -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=16), second_order=True, dtype=dtype)
    chosen = AlgorithmConfig(**{"head": "prototype", "head_scale": 2.0, **algorithm})
    return EncoderLearner(encoder.to(device), chosen, InnerConfig(lr=0.05, head_lr=0.4, steps=3), way=2)


def episodes(count: int = 3, support: int = 6, seed: int = 0) -> list[EncodedEpisode]:
    rng = np.random.default_rng(seed)
    labels, answers = np.arange(support) % 2, np.arange(6) % 2
    texts = [[rng.integers(5, 100, size=rng.integers(2, 12)) for _ in range(support + 6)] for _ in range(count)]
    return [EncodedEpisode(each[:support], labels, each[support:], answers, ("a", "b"), seed=number) for number, each in enumerate(texts)]


def ways(subject: EncoderLearner) -> Iterator[tuple[str, EncoderLearner]]:
    """The learner with each plan by which a GPU computes meta-gradients."""
    for way, vectorised, capture in (("sequential", 1, False), ("vectorised", 3, False), ("captured", 3, True), ("sequential, captured", 1, True)):
        yield way, subject.with_plan(ExecutionPlan(vectorised=vectorised, cuda_graphs=CudaGraphs() if capture else None))


@pytest.mark.parametrize("method", [method for method in METHODS if "dropout" not in method], ids=str)
def test_the_meta_gradient_is_that_of_the_cpu(method):
    on_cpu, on_gpu = learner("cpu", **method), learner("cuda", **method)
    batches = [episodes(seed=seed) for seed in range(4)]  # the second is captured, the third replayed
    expected = [on_cpu.mean_gradient(batch) for batch in batches]
    for way, planned in ways(on_gpu):
        for number, batch in enumerate(batches):
            found = planned.mean_gradient(batch)
            for name, value in expected[number].items():
                torch.testing.assert_close(found[name].cpu(), value, rtol=1e-7, atol=1e-10, msg=f"{way}, {number}, {name}")


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_same_meta_gradient_again_has_the_same_bits(method):
    for way, subject in ways(learner("cuda", torch.float32, **method)):
        first = subject.mean_gradient(episodes())
        for number in range(3):
            again = subject.mean_gradient(episodes())
            for name, value in first.items():
                assert torch.equal(value, again[name]), (way, number, name)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_nothing_is_waited_for_within_a_meta_gradient(method):
    for way, subject in ways(learner("cuda", torch.float32, **method)):
        for _ in range(2):
            subject.mean_gradient(episodes())  # libraries that start wait, and so does what begins to capture
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            subject.mean_gradient(episodes())
        except RuntimeError as error:
            raise AssertionError(way) from error
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_captured_graphs_see_new_parameters_and_new_sizes():
    subject = learner("cuda", adapt="all").with_plan(ExecutionPlan(vectorised=3, cuda_graphs=CudaGraphs()))
    plain = learner("cuda", adapt="all")
    for number in range(12):
        for each in (subject, plain):
            next(iter(each.parameters.values())).mul_(1.01)
        batch = episodes(count=1 + number % 3, support=6 + 2 * (number % 2))
        found, expected = subject.mean_gradient(batch), plain.mean_gradient(batch)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-10, msg=f"{number}, {name}")


@pytest.mark.parametrize("precision", ("tf32", "bf16"))
def test_faster_products_give_nearly_the_same(precision):
    expected = learner("cuda", adapt="all").mean_gradient(episodes())
    try:
        _, dtype, _ = hardware.apply(HardwareConfig(device="cuda", precision=precision))
        found = learner("cuda", dtype, adapt="all").mean_gradient(episodes())
    finally:
        torch.set_float32_matmul_precision("highest")
    one, other = (torch.cat([each[name].flatten().double() for name in expected]) for each in (expected, found))
    assert 0 < (one - other).norm() / one.norm() < 0.05


def test_a_run_resumes_with_the_same_bits(cli, tmp_path):
    short = [*FAST, "outer.schedule=constant", "evaluation.arms=[]"]
    assert cli("train", *short, "outer.steps=6", "hydra.run.dir=whole").code == 0
    assert cli("train", *short, "outer.steps=2", "hydra.run.dir=parts").code == 0
    assert cli("resume", "parts", "outer.steps=6").code == 0
    records = [[json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()] for run in ("whole", "parts")]
    losses = [[record["loss_after"] for record in each if record["split"] == "meta_train"] for each in records]
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]


def test_a_model_from_a_gpu_is_of_use_on_a_cpu(cli, tmp_path):
    assert cli("train", *FAST, "hydra.run.dir=run").code == 0
    rows = [{"text": text, "label": label} for text, label in (("a dull film", "no"), ("cold soup", "no"), ("a fine plot", "yes"), ("we came back", "yes"))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for device in ("cuda", "cpu"):
        assert cli("finetune", "checkpoint=run", "data.train=rows.jsonl", "report=false", f"hardware.device={device}", f"hydra.run.dir={device}").code == 0
        assert cli("predict", f"model={device}", "data=rows.jsonl", "output=answers.jsonl", f"hardware.device={device}").code == 0
        found.append([json.loads(line)["label"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()])
    assert len(found[0]) == len(rows)
    assert found[0] == found[1]


def test_memory_decides_how_many_episodes_are_vectorised():
    from metatrain.meta.memory import Largest
    from metatrain.training.memory_limit import fit_training

    subject = learner("cuda", torch.float32, adapt="all")
    largest = Largest(16, 96, 96)
    plan, line = fit_training(HardwareConfig(), subject, largest, torch.device("cuda"), meta_batch=5)
    assert plan == ExecutionPlan(vectorised=5) and plan.cuda_graphs is not None
    assert "5 episodes vectorised in one pass" in line
    with hardware.measured_memory(torch.device("cuda")) as used:
        subject.with_plan(plan).mean_gradient(episodes(5))
    assert used() > 0
    assert fit_training(HardwareConfig(vectorized_episodes=1), subject, largest, torch.device("cuda"), meta_batch=5)[0].vectorised == 1
