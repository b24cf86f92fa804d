"""Packed texts give what each architecture's own forward gives for one text at a time."""

import numpy as np
import pytest
import torch
import transformers
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.models.batches import cells, packed_cells
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.tiny import tokenizer

LENGTHS = (9, 3, 14, 3, 5, 8)
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
DECODER = {**SIZES, "num_key_value_heads": 2, "initializer_range": 0.2}
ENCODER = {**SIZES, "initializer_range": 0.2, "max_position_embeddings": 40}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 3, "num_heads": 4, "dropout_rate": 0.0}

# Name of the classes, and settings.
PACKED = {
    "bert": ("Bert", ENCODER),
    "electra": ("Electra", {**ENCODER, "embedding_size": 8}),
    "roberta": ("Roberta", ENCODER),
    "xlm-roberta": ("XLMRoberta", ENCODER),
    "camembert": ("Camembert", ENCODER),
    "data2vec-text": ("Data2VecText", ENCODER),
    "distilbert": ("DistilBert", {"dim": 16, "n_layers": 3, "n_heads": 4, "hidden_dim": 32, "initializer_range": 0.2}),
    "mpnet": ("MPNet", ENCODER),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 40, "initializer_range": 0.2}),
    "llama": ("Llama", DECODER),
    "mistral": ("Mistral", {**DECODER, "sliding_window": 20}),
    "qwen2": ("Qwen2", DECODER),
    "qwen3": ("Qwen3", {**DECODER, "head_dim": 4}),
    "t5": ("T5", {**T5, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5", T5),
}
PADDED = {
    "albert": ("Albert", {**ENCODER, "embedding_size": 8}),
    "deberta-v2": ("DebertaV2", {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "a short window": ("Mistral", {**DECODER, "sliding_window": 4}),
}


def saved(folder, kind: str, settings: dict) -> str:
    """A random model of an architecture, with a tokenizer, in a directory."""
    words = tokenizer()
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(words), pad_token_id=0 if kind not in ("Roberta", "Camembert") else 1, **settings)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def loaded(folder, kind: str, settings: dict, pooling: str = "mean", max_length: int = 16):
    """Our encoder, in float64."""
    name = saved(folder, kind, settings)
    encoder, notes = load_encoder(ModelConfig(name=name, pooling=pooling, max_length=max_length), second_order=True, dtype=torch.float64)
    return encoder, notes


def texts() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, len(tokenizer()), size=length) for length in LENGTHS]


def alone(folder, pooling: str) -> torch.Tensor:
    """Encodings by transformers' own model of one text at a time, so that there is no padding."""
    settings = transformers.AutoConfig.from_pretrained(folder)
    auto = transformers.AutoModelForTextEncoding if settings.is_encoder_decoder else transformers.AutoModel
    pooler = {"add_pooling_layer": pooling == "first"} if settings.model_type == "bert" else {}
    model = auto.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", **pooler).eval()
    rows = []
    for ids in texts():
        outputs = model(input_ids=torch.from_numpy(ids)[None])
        hidden = outputs.last_hidden_state[0]
        first = outputs.pooler_output[0] if pooling == "first" and settings.model_type == "bert" else hidden[0]
        rows.append({"mean": hidden.mean(0), "first": first, "last": hidden[-1]}[pooling])
    return torch.stack(rows)


def tolerance(name: str) -> float:
    """Some compute in float32, whatever the dtype: T5 its norms, and those with rotary positions these and theirs."""
    return 1e-5 if name in ("t5", "mt5", "llama", "mistral", "qwen2", "qwen3", "a short window") else 1e-12


def poolings(name: str) -> list[str]:
    return ["mean", "last"] if name in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "a short window") else ["mean", "first", "last"]


@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_a_packed_batch_gives_what_each_text_gives(tmp_path, name):
    kind, settings = {**PACKED, **PADDED}[name]
    for pooling in poolings(name):
        encoder, notes = loaded(tmp_path, kind, settings, pooling)
        assert (encoder.architecture is not None) == (name in PACKED)
        assert any(("packed" if name in PACKED else "padded in groups") in note for note in notes)
        found, expected = encoder(encoder.batch(texts())), alone(tmp_path, pooling)
        assert expected.std(0).mean() > 1e-3
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance(name), msg=pooling)


@pytest.mark.parametrize(("name", "kernel"), [("deberta-v2", "this architecture has no fused kernel"), ("albert", "fused (sdpa)"), ("mpnet", "packed")])
def test_the_fused_kernel_is_used_only_where_the_architecture_has_it(tmp_path, name, kernel):
    encoder = {}
    for second_order in (False, True):
        folder = saved(tmp_path, *{**PACKED, **PADDED}[name])
        encoder[second_order], notes = load_encoder(ModelConfig(name=folder, max_length=16), second_order, torch.float64)
        assert second_order or any(kernel in note for note in notes)
    found, expected = (each(each.batch(texts())) for each in (encoder[False], encoder[True]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PACKED)
def test_running_in_two_parts_equals_running_at_once(tmp_path, name):
    for pooling in poolings(name):
        encoder, _ = loaded(tmp_path, *PACKED[name], pooling)
        batch = encoder.batch(texts())
        assert encoder.layers == 3
        for cut in (0, 1, 2):
            hidden = encoder(batch, stop=cut)
            assert hidden.shape == (sum(LENGTHS), encoder.hidden_size)
            torch.testing.assert_close(encoder(batch, hidden=hidden, start=cut), encoder(batch), rtol=0, atol=0)


@pytest.mark.parametrize("name", PACKED)
def test_every_parameter_that_has_a_gradient_for_one_text_has_it_packed(tmp_path, name):
    """Positions shared between layers and groups, and heads shared between queries, get theirs from all of them."""
    encoder, _ = loaded(tmp_path, *PACKED[name])
    parameters = {key: value.detach().requires_grad_() for key, value in encoder.named_parameters()}
    weights = torch.randn(len(LENGTHS), encoder.hidden_size, dtype=torch.float64)

    def gradient(batches) -> dict[str, torch.Tensor]:
        encodings = torch.cat([functional_call(encoder, parameters, (batch,)) for batch in batches])
        found = torch.autograd.grad((encodings * weights).sum(), list(parameters.values()), allow_unused=True)
        return {key: value for key, value in zip(parameters, found) if value is not None}

    together, one_by_one = gradient([encoder.batch(texts())]), gradient([encoder.batch([text]) for text in texts()])
    assert together.keys() == one_by_one.keys()
    for key, value in one_by_one.items():
        torch.testing.assert_close(together[key], value, rtol=0, atol=100 * tolerance(name), msg=key)


def test_the_first_token_of_a_causal_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="pooling=first.*choose last or mean"):
        loaded(tmp_path, *PACKED["gpt2"], "first")


def test_positions_before_the_first_do_not_count(tmp_path):
    """RoBERTa has 40 position embeddings, of which two are never a text's."""
    assert loaded(tmp_path, *PACKED["roberta"], max_length=38)[0].architecture.first_position == 2
    with pytest.raises(UserError, match="has positions for 38 tokens; set model.max_length=38"):
        loaded(tmp_path, *PACKED["roberta"], max_length=39)


def test_a_tokenizer_without_padding_gets_one(tmp_path):
    encoder, _ = loaded(tmp_path, *PACKED["gpt2"])
    words = tokenizer()
    words.pad_token, words.eos_token = None, "[SEP]"
    words.save_pretrained(tmp_path)
    again, _ = load_encoder(ModelConfig(name=str(tmp_path), max_length=16), second_order=True, dtype=torch.float64)
    assert again.tokenizer.pad_token == "[SEP]"
    torch.testing.assert_close(again(again.batch(texts())), encoder(encoder.batch(texts())), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly) if name in ("camembert", "data2vec-text", "xlm-roberta") else name for name in PACKED]
)
def test_the_texts_of_several_episodes_go_through_it_with_parameters_of_their_own(tmp_path, name):
    rng = np.random.default_rng(1)
    episodes = [texts(), [rng.integers(5, len(tokenizer()), size=length) for length in (4, 11, 2, 7, 6, 3)]]
    for pooling in poolings(name):
        encoder, _ = loaded(tmp_path, *PACKED[name], pooling)
        own = [{key: value.detach() + 0.01 * number for key, value in encoder.named_parameters()} for number in range(2)]
        stacked = {key: torch.stack([each[key] for each in own]).requires_grad_() for key in own[0]}
        each = cells(episodes, encoder.device, encoder.architecture.causal)

        def encode(parameters, each, encoder=encoder):
            return functional_call(encoder, parameters, (packed_cells(*each),))

        found = torch.vmap(encode)(stacked, tuple(each))
        weights = torch.randn_like(found)
        together = torch.autograd.grad((found * weights).sum(), list(stacked.values()), allow_unused=True)
        for number, parameters in enumerate(own):
            parameters = {key: value.requires_grad_() for key, value in parameters.items()}
            expected = functional_call(encoder, parameters, (encoder.batch(episodes[number]),))
            torch.testing.assert_close(found[number], expected, rtol=0, atol=tolerance(name), msg=pooling)
            alone = torch.autograd.grad((expected * weights[number]).sum(), list(parameters.values()), allow_unused=True)
            for key, one, other in zip(parameters, together, alone):
                assert (one is None) == (other is None), key
                if one is not None:
                    torch.testing.assert_close(one[number], other, rtol=0, atol=100 * tolerance(name), msg=key)
