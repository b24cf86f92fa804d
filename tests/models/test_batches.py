"""Packing changes the cost, not the numbers."""

import numpy as np
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


def test_packed_attention_is_twice_differentiable():
    torch.manual_seed(0)
    texts = [text for text in random_texts(20) if len(text) in (3, 8, 9)]  # a group with padding and one without
    batch = pack(texts, CPU)
    tokens = sum(map(len, texts))
    inputs = [torch.randn(1, 2, tokens, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attend(query, key, value):
        return packed_attention(None, query, key, value, None, scaling=0.5, groups=batch.groups)[0]

    assert torch.autograd.gradgradcheck(attend, inputs)


def test_texts_cut_at_the_same_length_are_attended_to_without_padding():
    lengths = (120, 128, 128, 30, 128, 127)
    batch = pack([np.zeros(length, dtype=np.int64) for length in lengths], CPU)
    assert [(group.texts, group.length, group.mask is None, group.gather is None) for group in batch.groups] == [
        (3, 128, True, True),
        (2, 127, False, False),
        (1, 30, True, True),
    ]
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, sum(lengths), 4, dtype=torch.float64) for _ in range(3))
    found = packed_attention(None, query, key, value, None, scaling=0.5, groups=batch.groups)[0]
    for start, length in zip(batch.starts.tolist(), lengths):
        text = slice(start, start + length)
        alone = torch.nn.functional.scaled_dot_product_attention(query[:, :, text], key[:, :, text], value[:, :, text], scale=0.5)
        torch.testing.assert_close(found[:, text], alone.transpose(1, 2))


def test_many_texts_of_one_length_are_attended_to_without_padding():
    batch = pack([np.zeros(length, dtype=np.int64) for length in (22, 21, *[20] * 52, 19, *[18] * 50)], CPU)
    assert [(group.texts, group.length, group.mask is None) for group in batch.groups] == [(2, 22, False), (52, 20, True), (51, 19, False)]


def test_padding_is_in_groups_of_similar_length():
    texts = random_texts(20)
    batch = pad(texts, 0, CPU)
    sizes = [tuple(group.input_ids.shape) for group in batch.groups]
    assert sizes == [(1, 14), (2, 9), (1, 5), (2, 3)]
    rows = [row[mask.bool()] for group in batch.groups for row, mask in zip(group.input_ids, group.attention_mask)]
    for text, place in zip(texts, batch.order.tolist()):
        assert rows[place].tolist() == text.tolist()


def test_chunks_cover_everything_in_order_and_bound_the_tokens():
    texts = [np.zeros(n, dtype=np.int32) for n in (5, 50, 45, 5, 5, 120, 3)]
    assert chunks(texts, max_tokens=100) == [slice(0, 3), slice(3, 5), slice(5, 6), slice(6, 7)]
    assert chunks([], max_tokens=100) == []


def test_a_checkpoint_in_bf16_is_loaded_in_float32(tmp_path):
    from metatrain.models.tiny import tokenizer

    words = tokenizer()
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).to(torch.bfloat16).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    encoder, _ = load_encoder(ModelConfig(name=str(tmp_path), max_length=32), second_order=True)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert isinstance(encoder, Encoder)
