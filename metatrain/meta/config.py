"""Settings of the meta-learning method: head rule, adapted parameters, meta-gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

from metatrain.conditions import Condition, Place, Unread, chosen, needs, when
from metatrain.gradient.config import TRAINING_STEPS, more_steps

ADAPT, META_GRADIENT = chosen("algorithm.adapt"), chosen("algorithm.meta_gradient")


def _no_gradient_to_take(place: Place) -> Unread | None:
    # Models that do not run packed also choose their attention by it.
    return TRAINING_STEPS.unread(place) if place.facts("model.name").is_packed else None


def _no_encodings(place: Place) -> Unread | None:
    is_language_model = place.facts("algorithm.head").is_language_model
    return Unread(f"{place.given('algorithm.head')} is a language model without encodings", "choose another head") if is_language_model else None


def _nothing_selected(place: Place) -> Unread | None:
    row, steps = place.facts("algorithm.adapt"), place.value("inner.steps") or place.value("inner.evaluation_steps")
    if steps or row.attach is not None or place.value("algorithm.train") == "adapted" or place.value("inner.fit_head"):
        return None
    because = f"algorithm={place.value('algorithm.name')} makes no inner steps (inner.steps=0), so nothing adapts"
    return Unread(because, more_steps(place))


def _everything_adapts(place: Place) -> Unread | None:
    if not place.facts("algorithm.adapt").adapts_everything:
        return None
    return Unread(f"{place.given('algorithm.adapt')} adapts every parameter of the model", "choose another algorithm.adapt")


ENCODINGS = Condition(_no_encodings, lambda place: "algorithm.head is not a language model")
ADAPTS = Condition(_nothing_selected, lambda place: "the inner loop makes steps, an adapter is added, or algorithm.train is adapted")
CONTRASTIVE = needs("algorithm.contrastive", bool, "is set")


@dataclass
class AlgorithmConfig:
    """The meta-learning method: head rule, adapted parameters and meta-gradient (config group `algorithm`); the inner rule is in `inner`."""

    name: str = "maml"  # name of the method, shown in the log and used as the default name of the run
    # Initial head of an episode: linear | zero | shared | joint | prototype | cosine | ridge | generated | feat | feat_names | matching | relation |
    # soft_k_means | mlm; language models: lm | in_context.
    # linear: one learned row per class, for a fixed number of classes. zero: zeros. shared: one learned row for all classes. joint: one learned
    # row per label name of the training tasks. prototype: class means. cosine: directions of the class means, with model.normalize=true.
    # ridge: closed-form ridge regression. generated: an MLP over the support set. feat: class means adapted to each other by attention; feat_names:
    # and to the encodings of the label names. matching: attention over the support texts. relation: an MLP compares a text with each class mean;
    # like matching, it is no linear layer, so a finetuned model loads with metatrain only. soft_k_means: class means refined by the queries, which
    # are predicted together; evaluation and metatrain.load only. mlm: a masked language model predicts the label word at the mask of prompt.text; the
    # rows are its word embeddings and adapt with them. lm: the model generates the label name or the target text.
    # in_context: as lm, but the model reads the support set before each query, without an inner loop.
    head: str = "zero"
    head_scale: float = field(default=1.0, metadata=when(chosen("algorithm.head")))  # initial value of the learned logit scale
    # Add the label name of each class to its support texts; label names without meaning (28, B2, LABEL_3) are never read. In evaluation and
    # finetuning, label names are used only if they agree with the support set: by leave-one-out classification, or, where no class has two
    # examples, by classifying the support set with the label names.
    label_names: bool = field(default=False, metadata=when(ENCODINGS))
    # Number of examples that a label name counts for.
    label_names_weight: int = field(default=1, metadata=when(needs("algorithm.label_names", bool, "is true", "set algorithm.label_names=true")))
    # Adapted parameters: all | head | body (all but the head) | last_layers | layer_norm | pattern | lora | ia3 | context. With body and context
    # (CAVIA: a context vector), the head does not adapt.
    adapt: str = field(default="all", metadata=when(ADAPTS))
    last_layers: int = field(default=2, metadata=when(ADAPT))  # number of encoder layers that adapt, counted from the last; all if there are fewer
    pattern: str | None = field(default=None, metadata=when(ADAPT))  # regular expression searched for in parameter names; those that match adapt
    rank: int = field(default=8, metadata=when(ADAPT))  # rank of the LoRA matrices
    # Names of the modules that get an adapter; null: the defaults of `peft` for the architecture.
    targets: list[str] | None = field(default=None, metadata=when(ADAPT))
    context_size: int = field(default=32, metadata=when(ADAPT))  # length of the context vector
    # Parameters that the outer loop trains: all | adapted (freezes what does not adapt in the encoder, except adapters).
    train: str = field(default="all", metadata=when(Condition(_everything_adapts, lambda place: "algorithm.adapt leaves parameters of the model out")))
    # Meta-gradient: exact | exact_recomputed | forward_over_reverse | finite_difference | first_order (FOMAML) | implicit (iMAML) | reptile. The
    # first three are the exact second-order gradient; exact_recomputed needs the memory of one inner step, because it recomputes activations.
    # finite_difference approximates the second-order terms.
    meta_gradient: str = field(default="exact", metadata=when(Condition(_no_gradient_to_take, TRAINING_STEPS.words)))
    # Strength lambda of the proximal term lambda/2 |phi - theta|^2 in the inner loop; must be positive with algorithm.meta_gradient=implicit and
    # 0 otherwise; raised for a meta-update whose linear system has no solution.
    proximal: float = field(default=0.0, metadata=when(TRAINING_STEPS, META_GRADIENT))
    cg_steps: int = field(default=10, metadata=when(TRAINING_STEPS, META_GRADIENT))  # maximum number of conjugate-gradient iterations, 1 or more
    # Anneal MAML++'s multi-step loss over this number of meta-updates; 0: use only the loss after the last inner step.
    multi_step_until: int = field(
        default=0, metadata=when(META_GRADIENT, needs("inner.steps", lambda steps: steps > 1, "is above 1", "set inner.steps to 2 or more"))
    )
    # Use first-order meta-gradients before this meta-update (MAML++'s derivative-order annealing); 0: never.
    first_order_until: int = field(default=0, metadata=when(TRAINING_STEPS, META_GRADIENT))
    # Contrastive term of the outer loss over all texts of a meta-batch: supervised (texts with the same label name attract) | unsupervised
    # (a text and itself under different dropout; needs algorithm.dropout) | the name of a plug-in | null (none).
    contrastive: str | None = field(default=None, metadata=when(ENCODINGS))
    contrastive_weight: float = field(default=0.1, metadata=when(CONTRASTIVE))  # weight of the contrastive term relative to the query loss
    contrastive_temperature: float = field(default=0.05, metadata=when(CONTRASTIVE))  # temperature that divides the cosine similarities
    # Dropout rate in hidden states and attention, in meta-training only, from 0 to below 1. It and the next three settings, like
    # episode.permute_labels and episode.cross_task_fraction, reduce overfitting to the training tasks.
    dropout: float = 0.0
    # Passes with dropout: both | support | query.
    dropout_in: str = field(default="both", metadata=when(needs("algorithm.dropout", bool, "is above 0", "set algorithm.dropout, for example to 0.1")))
    meta_dropout: bool = field(default=False, metadata=when(ENCODINGS))  # add noise of learned strength to the support encodings, in meta-training only
    # Weight of an information bottleneck on query encodings; logged losses include it; 0: none.
    information_penalty: float = field(default=0.0, metadata=when(ENCODINGS))
