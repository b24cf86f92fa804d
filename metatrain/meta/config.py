"""What a user may set about the meta-learning method: the four axes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AlgorithmConfig:
    """A meta-learning method as a choice on the axes (config group `algorithm`); the inner rule is in `inner`."""

    name: str = "maml"  # of the method, for the log and the run directory
    # linear | zero | shared | joint | prototype | cosine (with model.normalize) | ridge | generated; of a language model, which
    # writes the names of labels and any other text: lm | in_context (no inner loop: the support set is read before each query)
    head: str = "zero"
    head_scale: float = 1.0  # initial scale of prototype, cosine and ridge logits (learned)
    # The name of each class is one more support text of it, unless it says nothing in words (28, B2, LABEL_3). In evaluation and finetuning,
    # names are read only where they agree with the support set: classified by leaving one example out, or by the names where no class has two.
    label_names: bool = False
    # all | head | body (all but the head) | last_layers | layer_norm | pattern | lora | ia3 | context (without the head)
    adapt: str = "all"
    last_layers: int = 2  # with adapt=last_layers: how many
    pattern: str | None = None  # with adapt=pattern: a regular expression that is searched for in parameter names
    rank: int = 8  # with adapt=lora
    targets: list[str] | None = None  # with adapt=lora or ia3: names of the modules they belong to; null: what `peft` takes for the architecture
    context_size: int = 32  # with adapt=context
    train: str = "all"  # what the outer loop trains: all | adapted (of the encoder, what adapts and adapters)
    # exact | exact_recomputed (the memory of one step) | forward_over_reverse | finite_difference | first_order | implicit | reptile
    meta_gradient: str = "exact"
    proximal: float = 0.0  # with meta_gradient=implicit: strength of the pull to the start in the inner loop; larger in updates without a solution
    cg_steps: int = 10  # with meta_gradient=implicit: most steps of conjugate gradients, 1 or more
    multi_step_until: int = 0  # losses after every inner step count, the early ones less and less until this meta-update; 0: never
    first_order_until: int = 0  # first-order meta-gradients before this meta-update
    # A term of the outer loss over all texts of a meta-batch: supervised (labels of one name attract) | unsupervised (a text with itself
    # under other dropout) | null
    contrastive: str | None = None
    contrastive_weight: float = 0.1  # of the contrastive term's gradient, beside that of the query losses
    contrastive_temperature: float = 0.05  # by which cosines are divided there
    # Against over-fitting to the training tasks, in meta-training only; see also episode.permute_labels and episode.mix.
    dropout: float = 0.0  # rate, of the model's hidden states and attention
    dropout_in: str = "both"  # both | support | query
    meta_dropout: bool = False  # noise on support encodings, with a learned strength
    information_penalty: float = 0.0  # on what query encodings say about the text; the losses in the log include it


@dataclass
class InnerConfig:
    """The inner loop (config group `inner`)."""

    rule: str = "sgd"  # sgd | meta_sgd | lslr | curvature | adam
    lr: float = 0.01  # of the encoder
    head_lr: float | None = None  # of the episode's head; null: the same as lr
    rank: int = 8  # with rule=curvature: of the learned matrices
    steps: int = 5  # inner steps in meta-training
    # In evaluation and finetuning, where the head alone adapts: then fit it to the support set, as strongly as cross-validation there says.
    fit_head: bool = False
    # Then train the whole encoder on the support set too, for as many updates as cross-validation there says, none among the choices.
    fit_encoder: bool = False
    evaluation_steps: int | None = None  # inner steps in validation, evaluation and finetuning; null: the same as steps
