#!/usr/bin/env bash
# How these files were made, in an empty directory, with version 0.1.0 (commit 716fba1). Not to be repeated: the files show that what this version
# wrote is still read. encoder_final and language_final are the last checkpoints of `full` and `language_full`, exported is full/model,
# *_scores.json the accuracies in evaluated*/results.json; reports, logs and model cards were removed.
set -e
export METATRAIN_CACHE= OMP_NUM_THREADS=1
python - <<'PY'
import csv, random, re
from pathlib import Path
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
rng = random.Random(0)
good = "good great fine lovely solid quick".split(); bad = "bad poor dull broken weak slow".split()
things = {"books": "plot story chapter ending".split(), "films": "scene actor camera script".split(), "tools": "drill blade handle motor".split(), "trains": "seat ticket station guard".split(), "phones": "screen battery button speaker".split(), "hotels": "room bed shower lobby".split()}
frames = "the {n} is {a}", "a {a} {n} again", "my {n} was {a} today", "what a {a} {n}", "{a} {n} and {a2} too"
def texts(words, label):
    found = []
    while len(found) < 14:
        text = rng.choice(frames).format(n=rng.choice(words), a=rng.choice(label), a2=rng.choice(label))
        if text not in found: found.append(text)
    return found
rows = [(task, text, name) for task, words in things.items() for name, label in (("positive", good), ("negative", bad)) for text in texts(words, label)]
with open("tasks.csv", "w", newline="") as f:
    w = csv.writer(f, lineterminator="\n"); w.writerow(["task", "text", "label"]); w.writerows(rows)
new = [(f"the {n} is {a}", name) for n in ("kettle", "lamp") for name, label in (("positive", good), ("negative", bad)) for a in label]
rng.shuffle(new)
for name, part in (("examples.csv", new[:14]), ("held_out.csv", new[14:] + [("what time is it", "clock"), ("and again today", "clock")])):
    with open(name, "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n"); w.writerow(["text", "label"]); w.writerows(part)
words = sorted({w for _, text, _ in rows for w in text.split()} | set("kettle lamp time it".split()))
letters = "abcdefghijklmnopqrstuvwxyz"
vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *(w for w in words if len(w) > 1)]
raw = Tokenizer(WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
raw.normalizer = normalizers.BertNormalizer(lowercase=True); raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer(); raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", model_max_length=32).save_pretrained("base")
torch.manual_seed(0)
BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), add_pooling_layer=False).save_pretrained("base")
PY
common="tasks=files tasks.path=tasks.csv tasks.task=task seed=1 outer.schedule=constant outer.warmup=0 outer.lr=1e-2 outer.meta_batch=2 episode.shots=2 episode.queries=3 validation.every=2 validation.episodes=1 validation.queries=3 checkpoint.every=1 checkpoint.keep=2 evaluation.episodes=3 evaluation.shots=[2] evaluation.queries=6 tracking=none hardware.device=cpu hardware.threads=1 report=false"

train="python -m metatrain train $common"
encoder="model=hub model.name=base model.max_length=32 algorithm=protomaml inner.rule=lslr inner.lr=0.05 inner.steps=2 outer.blend=0.5 outer.steps=4 evaluation.arms=[meta_trained,prototypes]"
$train $encoder hydra.run.dir=full
METATRAIN_FAILPOINTS=episode=term@6 $train $encoder hydra.run.dir=encoder || echo stopped $?
language="model=scratch_t5 model.scratch.hidden=8 model.scratch.layers=1 model.scratch.heads=2 model.scratch.vocabulary=300 algorithm=fomaml algorithm.head=lm validation.every=0 inner.lr=0.1 inner.steps=2 outer.steps=4 checkpoint.keep=1 evaluation.arms=[meta_trained,without_adaptation]"
$train $language hydra.run.dir=language_full
METATRAIN_FAILPOINTS=episode=term@6 $train $language hydra.run.dir=language || echo stopped $?
cpu="hardware.device=cpu hardware.threads=1"
python -m metatrain finetune checkpoint=base model.max_length=32 algorithm=recommended data.train=examples.csv data.test=held_out.csv none_of_these=0.05 $cpu hydra.run.dir=finetuned
python -m metatrain finetune checkpoint=full data.train=examples.csv $cpu hydra.run.dir=finetuned_run || true
python -m metatrain finetune checkpoint=language_full data.train=examples.csv data.test=examples.csv $cpu hydra.run.dir=finetuned_language
python -m metatrain predict model=finetuned data=held_out.csv output=predictions.jsonl $cpu
python -m metatrain predict model=finetuned_run data=held_out.csv output=predictions_run.jsonl $cpu
python -m metatrain predict model=finetuned_language data=held_out.csv output=predictions_language.jsonl $cpu
python -m metatrain evaluate checkpoint=encoder evaluation.episodes=4 evaluation.arms=[meta_trained,prototypes] $cpu hydra.run.dir=evaluated report=false
python -m metatrain evaluate checkpoint=language evaluation.episodes=4 evaluation.arms=[meta_trained] $cpu hydra.run.dir=evaluated_language report=false
