"""Settings of the meta-learning method: head rule, adapted parameters, meta-gradient."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AlgorithmConfig:
    """The meta-learning method: head rule, adapted parameters and meta-gradient (config group `algorithm`); the inner rule is in `inner`."""

    name: str = "maml"  # name of the method, shown in the log and used as the default name of the run
    # Initial head of an episode: linear | zero | shared | joint | prototype | cosine | ridge | generated | feat | feat_names | matching | relation;
    # language models: lm | in_context.
    # linear: one learned row per class, for a fixed number of classes. zero: zeros. shared: one learned row for all classes. joint: one learned
    # row per label name of the training tasks. prototype: class means. cosine: directions of the class means, with model.normalize=true.
    # ridge: closed-form ridge regression. generated: an MLP over the support set. feat: class means adapted to each other by attention; feat_names:
    # and to the encodings of the label names. matching: attention over the support texts. relation: an MLP compares a text with each class mean;
    # like matching, it is no linear layer, so a finetuned model loads with metatrain only. lm: the model generates the label name or the target text.
    # in_context: as lm, but the model reads the support set before each query, without an inner loop.
    head: str = "zero"
    head_scale: float = 1.0  # initial value of the learned logit scale; for algorithm.head=prototype, cosine, ridge, feat, feat_names and matching
    # Add the label name of each class to its support texts; label names without meaning (28, B2, LABEL_3) are never read. In evaluation and
    # finetuning, label names are used only if they agree with the support set: by leave-one-out classification, or, where no class has two
    # examples, by classifying the support set with the label names.
    label_names: bool = False
    label_names_weight: int = 1  # number of examples that a label name counts for; with algorithm.label_names
    # Adapted parameters: all | head | body (all but the head) | last_layers | layer_norm | pattern | lora | ia3 | context. With body and context
    # (CAVIA: a context vector), the head does not adapt.
    adapt: str = "all"
    last_layers: int = 2  # number of encoder layers that adapt, counted from the last; with algorithm.adapt=last_layers
    pattern: str | None = None  # regular expression searched for in parameter names; those that match adapt; with algorithm.adapt=pattern
    rank: int = 8  # rank of the LoRA matrices; with algorithm.adapt=lora
    # Names of the modules that get an adapter; with algorithm.adapt=lora or ia3; null: the defaults of `peft` for the architecture.
    targets: list[str] | None = None
    context_size: int = 32  # length of the context vector; with algorithm.adapt=context
    train: str = "all"  # parameters that the outer loop trains: all | adapted (freezes what does not adapt in the encoder, except adapters)
    # Meta-gradient: exact | exact_recomputed | forward_over_reverse | finite_difference | first_order (FOMAML) | implicit (iMAML) | reptile. The
    # first three are the exact second-order gradient; exact_recomputed needs the memory of one inner step, because it recomputes activations.
    # finite_difference approximates the second-order terms.
    meta_gradient: str = "exact"
    # Strength lambda of the proximal term lambda/2 |phi - theta|^2 in the inner loop; must be positive with algorithm.meta_gradient=implicit and
    # 0 otherwise; raised for a meta-update whose linear system has no solution.
    proximal: float = 0.0
    cg_steps: int = 10  # maximum number of conjugate-gradient iterations, 1 or more; with algorithm.meta_gradient=implicit
    multi_step_until: int = 0  # anneal MAML++'s multi-step loss over this number of meta-updates; 0: use only the loss after the last inner step
    first_order_until: int = 0  # use first-order meta-gradients before this meta-update (MAML++'s derivative-order annealing); 0: never
    # Contrastive term of the outer loss over all texts of a meta-batch: supervised (texts with the same label name attract) | unsupervised
    # (a text and itself under different dropout; needs algorithm.dropout) | null (none).
    contrastive: str | None = None
    contrastive_weight: float = 0.1  # weight of the contrastive term relative to the query loss; with algorithm.contrastive
    contrastive_temperature: float = 0.05  # temperature that divides the cosine similarities; with algorithm.contrastive
    # Dropout rate in hidden states and attention, in meta-training only, from 0 to below 1. It and the next three settings, like
    # episode.permute_labels and episode.cross_task_fraction, reduce overfitting to the training tasks.
    dropout: float = 0.0
    dropout_in: str = "both"  # passes with dropout: both | support | query; with algorithm.dropout above 0
    meta_dropout: bool = False  # add noise of learned strength to the support encodings, in meta-training only
    information_penalty: float = 0.0  # weight of an information bottleneck on query encodings; logged losses include it; 0: none
