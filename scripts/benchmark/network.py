"""Four ranks over a slow network: python scripts/benchmark/network.py > network.json      needs root on Linux (unshare, ip, tc)

All ranks run on this machine, in a network of their own whose loopback carries so many bits a second (token bucket); the bytes that the
cost model counts for the exchange, over that rate, are compared with the time that a meta-update takes longer than on the loopback as
it is. Latency cannot be had this way.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RANKS, UPDATES = 4, 6
RATES = {"as it is": None, "2 Gbit/s": 2e9, "1 Gbit/s": 1e9, "0.5 Gbit/s": 5e8}
RUN = [
    *("train", "algorithm=fomaml", "inner.steps=1", "tracking=none", "validation.every=0", "evaluation.arms=[]", "outer.warmup=1"),
    *(f"outer.steps={UPDATES}", f"hardware.processes={RANKS}", "hardware.threads=1", "checkpoint.every=1000"),
]


def seconds(rate: float | None, reduce: str) -> float:
    """A meta-update's, the first left out."""
    with tempfile.TemporaryDirectory() as folder:
        shape = "" if rate is None else f"tc qdisc add dev lo root tbf rate {rate:.0f}bit burst 1mb latency 400ms && "
        command = " ".join([sys.executable, "-m", "metatrain", *RUN, f"hardware.reduce={reduce}", f"hydra.run.dir={folder}/run"])
        command = command.replace("[]", "'[]'")
        subprocess.run(["unshare", "-n", "bash", "-c", f"ip link set lo up && {shape}{command}"], check=True, stdout=subprocess.DEVNULL)
        records = [json.loads(line) for line in (Path(folder) / "run/timings.jsonl").read_text().splitlines()][1:]
    return statistics.median(each["seconds"] for each in records)


def exchanged() -> float:
    """Bytes over the loopback in a meta-update of as many episodes as ranks: each rank's slices to all others, then the sum's to all."""
    from metatrain.config.schema import TrainConfig  # noqa: F401  the same imports as the runs
    from metatrain.models.config import ModelConfig
    from metatrain.models.encoder import load_encoder

    encoder, _ = load_encoder(ModelConfig(name="minilm"))
    words = dict(encoder.named_parameters())[encoder.word_embeddings]
    rest = sum(value.numel() for value in encoder.parameters()) - words.numel()
    rows = 400  # of the word embeddings, about, that occur in a meta-batch; the others do not travel
    return 2 * (RANKS - 1) * 4 * (rest + rows * words.shape[1])


def main() -> None:
    number = exchanged()
    found = {reduce: {name: seconds(rate, reduce) for name, rate in RATES.items()} for reduce in ("ordered", "fast")}
    for times in found.values():
        print(times, file=sys.stderr)
    rows = {
        name: {reduce: {"seconds": times[name], "longer": times[name] - times["as it is"], "predicted": 8 * number / rate} for reduce, times in found.items()}
        for name, rate in RATES.items()
        if rate is not None
    }
    print(json.dumps({"megabytes": number / 1e6, "seconds as it is": {reduce: times["as it is"] for reduce, times in found.items()}, "rates": rows}, indent=1))


if __name__ == "__main__":
    main()
