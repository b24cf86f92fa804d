"""Packing changes the cost, not the numbers."""

import copy

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from metatrain.models.batches import chunks, pack, packed_attention, pad
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder

LENGTHS = (9, 3, 14, 3, 5, 8)
CPU = torch.device("cpu")


def random_texts(vocabulary: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, vocabulary, size=length) for length in LENGTHS]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_packed_equals_padded_with_transformers_own_attention(pooling):
    torch.manual_seed(0)
    packed, _ = load_encoder(ModelConfig(name="tiny", pooling=pooling), second_order=True, dtype=torch.float64)
    plain = BertModel(copy.deepcopy(packed.backbone.config), add_pooling_layer=pooling == "first").double()
    plain.load_state_dict(packed.backbone.state_dict())
    plain.set_attn_implementation("eager")
    plain.eval()
    texts = random_texts(len(packed.tokenizer))
    inputs = pad(texts, packed.padding_id, CPU)
    outputs = plain(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
    hidden = outputs.last_hidden_state
    expected = outputs.pooler_output if pooling == "first" else torch.stack([hidden[i, :n].mean(0) for i, n in enumerate(LENGTHS)])
    torch.testing.assert_close(packed(packed.batch(texts)), expected, rtol=0, atol=1e-12)


def test_running_in_two_parts_equals_running_at_once():
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True, dtype=torch.float64)
    batch = encoder.batch(random_texts(len(encoder.tokenizer)))
    hidden = encoder(batch, stop=1)
    assert hidden.shape == (sum(LENGTHS), encoder.hidden_size)
    torch.testing.assert_close(encoder(batch, hidden=hidden, start=1), encoder(batch), rtol=0, atol=0)


def test_packed_attention_is_twice_differentiable():
    torch.manual_seed(0)
    batch = pack(random_texts(20), CPU)
    tokens = sum(LENGTHS)
    inputs = [torch.randn(1, 2, tokens, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attend(query, key, value):
        return packed_attention(None, query, key, value, None, scaling=0.5, groups=batch.groups)[0]

    assert torch.autograd.gradgradcheck(attend, inputs)


def test_rows_map_ids_to_positions():
    batch = pack([np.array([7, 3]), np.array([9])], CPU)
    rows = torch.tensor([0, 3, 7, 9])
    assert rows[batch.remap(rows).input_ids].tolist() == batch.input_ids.tolist()


def test_chunks_cover_everything_in_order_and_bound_the_padded_size():
    texts = [np.zeros(n, dtype=np.int32) for n in (5, 50, 5, 5, 5, 120, 3)]
    slices = chunks(texts, most_tokens=100)
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(len(texts)))
    for part in slices:
        sizes = [len(text) for text in texts[part]]
        assert len(sizes) == 1 or max(sizes) * len(sizes) <= 100


def test_an_architecture_that_cannot_be_packed_is_padded(tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    from metatrain.models.tiny import tokenizer

    words = tokenizer()
    model = DistilBertModel(DistilBertConfig(vocab_size=len(words), dim=32, n_layers=2, n_heads=2, hidden_dim=64))
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    encoder, notes = load_encoder(ModelConfig(name=str(tmp_path), max_length=32), second_order=True, dtype=torch.float64)
    assert not encoder.packs
    assert any("eager" in note and "padded" in note for note in notes)
    texts = random_texts(len(words))
    together = encoder(encoder.batch(texts))
    alone = torch.cat([encoder(encoder.batch([text])) for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_a_checkpoint_in_bf16_is_loaded_in_float32(tmp_path):
    from metatrain.models.tiny import tokenizer

    words = tokenizer()
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).to(torch.bfloat16).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    encoder, _ = load_encoder(ModelConfig(name=str(tmp_path), max_length=32), second_order=True)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert isinstance(encoder, Encoder)
