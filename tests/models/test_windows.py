"""Long texts in overlapping windows: what each window holds, the mean of their encodings, and where windows are refused."""

import json

import numpy as np
import pytest
import torch

from metatrain import FewShotClassifier
from metatrain.checkpoints.recipe import Recipe, check_long_texts
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import Classifier
from metatrain.models.finetuned_folder import FINETUNED
from metatrain.models.windows import Windows, check_cut
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.texts import PAIR

LONG = " ".join(f"word{number} is good" for number in range(40))


def encoder(long_texts: str = "windows", **settings):
    torch.manual_seed(0)
    return load_encoder(ModelConfig(name="tiny", max_length=20, long_texts=long_texts, **settings), second_order=False)[0]


def test_windows_overlap_cover_the_text_and_have_its_special_tokens():
    model = encoder()
    (ids,) = model.tokens().encode([LONG])
    windows, places = model.windows.split([ids[:20], ids])
    assert len(windows[0]) == 20 and places.tolist() == [0] + [1] * (len(windows) - 1)
    starts = []
    for window in windows[1:]:
        assert len(window) == 20 and window[0] == ids[0] and window[-1] == ids[-1]
        content = window[1:-1].tolist()
        starts.append(next(start for start in range(1, len(ids)) if ids[start : start + 18].tolist() == content))
    assert starts[0] == 1 and starts[-1] == len(ids) - 19
    assert all(0 < later - earlier <= 18 - 4 for earlier, later in zip(starts, starts[1:]))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_encoding_is_the_mean_of_the_windows(normalize):
    model = encoder(normalize=normalize)
    ids = model.tokens().encode([LONG, "it is good"])
    windows, _ = model.windows.split(ids[:1])
    mean = torch.stack([model(model.batch([window]))[0] for window in windows]).mean(0)
    expected = mean / mean.norm() if normalize else mean
    found = model(model.batch(ids))
    assert torch.allclose(found[0], expected, atol=1e-5) and torch.allclose(found[1:], model(model.batch(ids[1:])), atol=1e-5)


def test_short_texts_have_the_bits_of_a_cut():
    short = ["it is good", "not so good"]
    both = [model(model.batch(model.tokens().encode(short))) for model in (encoder(), encoder("cut"))]
    assert torch.equal(*both)


def test_each_window_has_the_prefix():
    model = encoder(prefix="query: ")
    (ids,) = model.tokens().encode([LONG])
    first = model.tokenizer("query: ")["input_ids"][:-1]
    assert all(window[: len(first)].tolist() == first for window in model.windows.split([ids])[0])


def test_a_classifier_reads_windows_after_it_was_saved(tmp_path):
    texts = [LONG, f"{LONG} bad", "it is good", "it is bad", LONG[20:], f"{LONG[20:]} bad"]
    settings = {"model.long_texts": "windows", "model.max_length": 20}
    fitted = FewShotClassifier("tiny", algorithm="recommended", device="cpu", settings=settings).fit(texts, ["a", "b"] * 3)
    fitted.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / FINETUNED).read_text())["encoder"]["long_texts"] == "windows"
    loaded = Classifier(tmp_path / "saved", torch.device("cpu"))
    assert np.allclose(loaded.scores(texts).softmax(1).numpy(), fitted.predict_proba(texts), atol=1e-5)
    differs = [f"{LONG} bad bad bad", f"{LONG} good good good"]  # only behind the cut
    assert not torch.allclose(*loaded.scores(differs))


def recipe(adapt: str, steps: int, **inner) -> Recipe:
    algorithm, model = AlgorithmConfig(adapt=adapt), ModelConfig(name="tiny", long_texts="windows")
    return Recipe(model, algorithm, InnerConfig(steps=steps, **inner), EpisodeConfig(), 0)


@pytest.mark.parametrize("given", [recipe("last_layers", 3), recipe("lora", 0), recipe("head", 0, fit_encoder=True)])
def test_an_encoder_that_adapts_is_refused(given):
    with pytest.raises(UserError, match="model.long_texts=windows needs an encoder that stays as it is"):
        check_long_texts(given, is_encoder=True)


def test_what_else_is_refused():
    check_long_texts(recipe("head", 5), is_encoder=True)
    check_long_texts(recipe("all", 0), is_encoder=True)
    with pytest.raises(UserError, match="model.long_texts=windows is for encoders of texts"):
        check_long_texts(recipe("head", 5), is_encoder=False)
    with pytest.raises(UserError, match="meta-training cuts long texts"):
        check_cut("windows")
    with pytest.raises(UserError, match="model.long_texts=pages is unknown; choose cut or windows"):
        encoder("pages")
    with pytest.raises(UserError, match="is for single texts, and these are pairs"):
        encoder().tokens().encode([f"one{PAIR}two"])
    with pytest.raises(UserError, match="leaves no room for windows"):
        Windows.of(encoder().tokenizer, 3, "")
