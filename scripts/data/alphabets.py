"""Draw character images, one alphabet per task, like Omniglot (Lake et al. 2015), from the fonts of matplotlib.

    python scripts/data/alphabets.py FOLDER [--pictures 20] [--seed 0]
    python scripts/data/alphabets.py FOLDER --pixels armenian georgian hebrew

Writes FOLDER/ALPHABET/CHARACTER/NUMBER.png, 32 x 32 pixels, for `tasks.images=true`: small letters of every script that DejaVu
Sans has, in several faces, each time turned, stretched and moved a little. With `--pixels`, it prints what logistic regression on the
pixels makes of 5-way episodes of these scripts instead. Needs the extras `pictures` and `sweep`.
"""

from __future__ import annotations

import argparse
import unicodedata
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from metatrain.evaluation.logistic_regression import logistic_regression

SIDE, DRAWN = 32, 96  # pixels of a picture, and of the larger one that it is made from
FACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold")
LEAST, MOST = 12, 40  # characters of an alphabet


def alphabets(faces: dict[str, Path]) -> dict[str, dict[str, list[str]]]:
    """Characters by script, and the faces that have each."""
    have = {face: set(TTFont(path).getBestCmap()) for face, path in faces.items()}
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for code in sorted(have[FACES[0]]):
        character = chr(code)
        name = unicodedata.name(character, "")
        plain = " WITH " not in name and not unicodedata.decomposition(character)
        if plain and (unicodedata.category(character) == "Lo" or " SMALL LETTER " in name) and len(found[name.split()[0]]) < MOST:
            found[name.split()[0]][character] = [face for face in faces if code in have[face]]
    return {script.lower(): characters for script, characters in found.items() if len(characters) >= LEAST}


def picture(character: str, face: Path, rng: np.random.Generator) -> Image.Image:
    """A character, black on white, somewhere near the middle."""
    font = ImageFont.truetype(str(face), int(rng.uniform(44, 60)))
    image = Image.new("L", (DRAWN, DRAWN), 255)
    ImageDraw.Draw(image).text((DRAWN / 2, DRAWN / 2), character, fill=0, font=font, anchor="mm")
    angle, shear, (x, y) = rng.normal(0, 0.12), rng.normal(0, 0.12), rng.normal(0, 4, 2)
    stretch = rng.uniform(0.85, 1.15)
    cosine, sine, middle = np.cos(angle), np.sin(angle), DRAWN / 2
    a, b, c, d = cosine * stretch, -sine + shear, sine, cosine / stretch
    coefficients = (a, b, middle - a * (middle + x) - b * (middle + y), c, d, middle - c * (middle + x) - d * (middle + y))
    image = image.transform((DRAWN, DRAWN), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=255)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def pixels(folder: Path, scripts: list[str], shots: int, episodes: int, rng: np.random.Generator) -> float:
    """Accuracy of logistic regression on pixels, 5-way, with 10 queries a class."""
    scores = []
    for script in scripts:
        classes = {
            path: np.stack([np.asarray(Image.open(file).convert("L")).ravel() / 255 for file in sorted(path.iterdir())])
            for path in sorted((folder / script).iterdir())
        }
        for _ in range(episodes):
            chosen = [rng.permutation(classes[path]) for path in rng.choice(np.array(list(classes)), 5, replace=False)]
            support, query = (np.concatenate([each[part] for each in chosen]) for part in (slice(shots), slice(shots, shots + 10)))
            model = logistic_regression(support, np.repeat(range(5), shots))
            scores.append(model.score(query, np.repeat(range(5), 10)))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=20, help="of each character")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pixels", nargs="+", metavar="SCRIPT")
    arguments = parser.parse_args()
    if arguments.pixels:
        for shots in (1, 5):
            print(f"{shots}-shot: {pixels(arguments.folder, arguments.pixels, shots, 100, np.random.default_rng(arguments.seed)):.3f}")
        return
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces, rng = {face: fonts / f"{face}.ttf" for face in FACES}, np.random.default_rng(arguments.seed)
    for script, characters in alphabets(faces).items():
        for character, having in characters.items():
            folder = arguments.folder / script / f"{ord(character):04x}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(arguments.pictures):
                picture(character, faces[rng.choice(having)], rng).convert("RGB").save(folder / f"{number:02}.png")
        print(f"{script}: {len(characters)} characters")


if __name__ == "__main__":
    main()
