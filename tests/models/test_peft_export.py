"""A meta-trained LoRA leaves as an adapter of peft, which gives the same logits wherever it is loaded."""

from dataclasses import replace

import pytest
import torch
from small_models import save_preset

from metatrain.checkpoints.building import build_learner
from metatrain.checkpoints.finetuning import adapter_base
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.checkpoints.recipe import Recipe
from metatrain.checkpoints.saving import check_export, save_model
from metatrain.config.schema import Overrides
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.learner import Learner
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.export import save_finetuned
from metatrain.models.generation import TextGenerator
from metatrain.models.peft_export import Base
from metatrain.tasks.config import EpisodeConfig

CPU = torch.device("cpu")
ALGORITHM = AlgorithmConfig(head="lm", adapt="lora", train="adapted", rank=2, meta_gradient="first_order")


@pytest.fixture
def trained(tmp_path) -> tuple[Learner, Recipe]:
    """A learner of a small Llama whose LoRA matrices are not where they begin."""
    model = ModelConfig(name=save_preset("llama", tmp_path / "base"), max_length=16, max_target_length=8)
    recipe = Recipe(model, ALGORITHM, InnerConfig(lr=0.01, steps=1), EpisodeConfig(), 0, prompt=PromptConfig(text="Text: {text}", scoring="mean"))
    learner = build_learner(recipe, CPU, torch.float32)
    for value in learner.parameters.values():
        value.add_(0.2 * torch.randn_like(value))
    return learner, recipe


def logits(backbone) -> torch.Tensor:
    with torch.no_grad():
        return backbone(input_ids=torch.arange(12)[None]).logits


def test_peft_and_metatrain_load_the_adapter(trained, tmp_path):
    import peft
    from transformers import AutoModelForCausalLM

    learner, recipe = trained
    save_model(tmp_path / "model", learner, recipe)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "adaptation.json", "tokenizer.json"} <= names and "model.safetensors" not in names
    expected = logits(learner.load_model().backbone)
    base = AutoModelForCausalLM.from_pretrained(recipe.model.name)
    different = logits(base)
    torch.testing.assert_close(logits(peft.PeftModel.from_pretrained(base, tmp_path / "model")), expected, rtol=1e-5, atol=1e-6)
    assert (different - expected).abs().max() > 1e-3
    torch.testing.assert_close(logits(peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model")), expected, rtol=1e-5, atol=1e-6)
    opened = open_checkpoint(str(tmp_path / "model"), Overrides(), CPU, torch.float32, lambda line: None)
    assert opened.learner.parameters.keys() == learner.parameters.keys()
    assert all(torch.equal(value, learner.parameters[name]) for name, value in opened.learner.parameters.items())
    assert opened.learner.model.prompt_config == recipe.prompt
    assert torch.equal(logits(opened.untrained().load_model().backbone), different)


def test_the_merged_model_gives_the_same_logits(trained, tmp_path):
    from transformers import AutoModelForCausalLM

    learner, recipe = trained
    save_model(tmp_path / "model", learner, recipe, "merged")
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), logits(learner.load_model().backbone), rtol=1e-4, atol=1e-5)


def test_what_is_no_adapter_is_refused():
    with pytest.raises(UserError, match="checkpoint.export=lora is unknown"):
        check_export("lora", ALGORITHM, ModelConfig(name="x"))
    for algorithm, name in ((replace(ALGORITHM, train="all"), "x"), (replace(ALGORITHM, adapt="all"), "x"), (ALGORITHM, "scratch:gpt2")):
        with pytest.raises(UserError, match="set algorithm.adapt=lora algorithm.train=adapted"):
            check_export("adapter", algorithm, ModelConfig(name=name))
    check_export("merged", replace(ALGORITHM, adapt="all"), ModelConfig(name="x"))


def test_a_finetuned_adapter_generates_what_the_merged_model_does(trained, tmp_path):
    from transformers import AutoModelForCausalLM

    learner, recipe = trained
    model = learner.load_model()
    sizes = {}
    for export in ("adapter", "merged"):
        library = save_finetuned(tmp_path / export, model, learner.parameters, ["red", "blue"], adapter_of=adapter_base(learner, export))
        assert library == {"adapter": "peft", "merged": "transformers"}[export]
        sizes[export] = sum(path.stat().st_size for path in (tmp_path / export).glob("*.safetensors"))
    assert adapter_base(learner, None) == Base(recipe.model.name, None) and sizes["adapter"] < sizes["merged"] / 2
    adapter, merged = (TextGenerator(tmp_path / export, CPU) for export in sizes)
    texts = ["a rose", "the sea"]
    torch.testing.assert_close(adapter.scores(texts), merged.scores(texts), rtol=1e-4, atol=1e-5)
    assert (TextGenerator(tmp_path / "merged", CPU).scores(texts) - base_scores(recipe, texts, tmp_path)).abs().max() > 1e-3
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")), logits(model.backbone), rtol=1e-4, atol=1e-5)


def base_scores(recipe: Recipe, texts: list[str], folder) -> torch.Tensor:
    """Scores of the same labels by the base model."""
    learner = build_learner(recipe, CPU, torch.float32)
    save_finetuned(folder / "start", learner.load_model(), learner.parameters, ["red", "blue"], adapter_of=None)
    return TextGenerator(folder / "start", CPU).scores(texts)


def test_an_export_that_makes_no_sense_is_refused(trained, tmp_path):
    learner, recipe = trained
    with pytest.raises(UserError, match="export=lora is unknown; choose adapter or merged"):
        adapter_base(learner, "lora")
    save_model(tmp_path / "merged", learner, recipe, "merged")
    merged = open_checkpoint(str(tmp_path / "merged"), Overrides(), CPU, torch.float32, lambda line: None).learner
    assert adapter_base(merged, None) is None  # its base would need the matrices that are merged into it
    for export in ("adapter", "merged"):
        with pytest.raises(UserError, match=f"export={export} is for a pretrained language model of which only LoRA matrices adapt"):
            adapter_base(merged, export)


def test_a_finetuned_adapter_is_no_checkpoint_and_one_without_its_base_says_so(trained, tmp_path):
    learner, recipe = trained
    save_finetuned(tmp_path / "tuned", learner.load_model(), learner.parameters, None, adapter_of=Base(recipe.model.name, None))
    with pytest.raises(UserError, match=f"is a LoRA adapter; give its base model, checkpoint={recipe.model.name}"):
        open_checkpoint(str(tmp_path / "tuned"), Overrides(), CPU, torch.float32, lambda line: None)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="its base model .*base does not exist; change base_model_name_or_path"):
        TextGenerator(tmp_path / "tuned", CPU)
    (tmp_path / "tuned" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="names no base model"):
        TextGenerator(tmp_path / "tuned", CPU)
