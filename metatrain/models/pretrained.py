"""Loading of pretrained tokenizers and models, from the hub or a directory.

Weights are read only from safetensors files, never from pickles, which can hold code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

from metatrain.errors import RestartableError, UserError
from metatrain.models.backbone import Backbone
from metatrain.models.config import ModelConfig
from metatrain.models.folders import folder_of_transformer
from metatrain.paths import local_path

# No progress bar for loading local weights; transformers would switch off those of downloads as well.
_downloads_are_shown = not are_progress_bars_disabled()
disable_progress_bar()
if _downloads_are_shown:
    enable_progress_bars()

_PADDING = "<|padding|>"  # padding token added to a tokenizer without one

# From the configuration of a model to the auto class that loads it and options of that class.
Choice = Callable[[PretrainedConfig], tuple[Any, dict[str, Any]]]


def check_remote_code(config: ModelConfig) -> None:
    """Raises: UserError: code from the hub may run, but no commit is specified."""
    if config.trust_remote_code and not _is_commit(config.revision):
        raise UserError("model.trust_remote_code=true needs model.revision set to a 40-digit commit")


def read_settings(path: str | Path, config: ModelConfig | None = None) -> PretrainedConfig:
    """Return the configuration of a hub id or a directory; config: None: with default options.

    Raises:
        UserError: it refers to code from the hub (an attention kernel), which is never run.
        OSError, ValueError: it does not exist, or its architecture is unknown.
    """
    options = _options(str(path), config) if config else {"trust_remote_code": False}
    raw, _ = PretrainedConfig.get_config_dict(path, **options)
    for key, value in _entries(raw):
        if "attn_implementation" in key and "/" in str(value):
            raise UserError(f"{path}: config.json refers to code from the hub ({key}: {value}), which is never run; remove the entry")
    return AutoConfig.from_pretrained(path, **options)


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every plain value of nested settings, with its path."""
    if isinstance(value, (dict, list)):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _entries(each, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def attention_for(second_order: bool) -> str | None:
    """Return the attention implementation to load a model with: eager, which is twice differentiable; None: the fused kernel, if the architecture has one."""
    return "eager" if second_order else None


def attention_in_log(backbone: Backbone, second_order: bool) -> str:
    """Return the attention implementation of a loaded model, with the reason."""
    if second_order:
        return "attention: eager, because the fused kernel has no second derivatives"
    if backbone.config._attn_implementation == "eager":
        return "attention: eager, because this architecture has no fused kernel"
    return "attention: fused (sdpa), first derivatives only"


def load_backbone(path: str, config: ModelConfig, choose: Choice, attention: str | None, dtype: torch.dtype, if_lost: str = "") -> Backbone:
    """Return the model of a hub id or a directory; attention: as `attention_for` returns it; if_lost: what to do about missing weights, for the message.

    Raises:
        UserError: it does not exist, cannot be read by the class that `choose` returns, or lacks weights that are used.
        RestartableError: the hub cannot be reached.
    """
    with _explained(config):
        auto, more = choose(read_settings(path, config))
        # The default is the dtype of the checkpoint, but inner steps in bf16 make no progress.
        options = {"dtype": dtype, "attn_implementation": attention, "use_safetensors": True, **more, **_options(path, config)}
        verbosity = get_verbosity()
        set_verbosity_error()  # missing weights are reported below
        try:
            backbone, found = auto.from_pretrained(path, output_loading_info=True, **options)
        finally:
            set_verbosity(verbosity)
    # Missing weights of an unused pooler do not matter.
    lost = lost_weights(found, () if more.get("add_pooling_layer") else ("pooler.",))
    if lost:
        raise UserError(f"model.name={config.name} {lost}" + ("; set model.pooling=mean, which needs none" if "(pooler." in lost else if_lost))
    return backbone


def lost_weights(found: dict[str, Any], unused: tuple[str, ...] = ()) -> str | None:
    """Return a message about missing weights, which transformers initialises at random; unused: parts of names to ignore."""
    lost = sorted(key for key in found["missing_keys"] if not any(part in key for part in unused))
    return f"has no weights for {len(lost)} of its parameters ({lost[0]}{', ...' * (len(lost) > 1)})" if lost else None


def name_in_log(config: ModelConfig) -> str:
    """Return `model.name`, for a hub model with the commit that was loaded."""
    commit = commit_of(config.name, config.revision)
    return config.name if commit is None else f"{config.name} at {commit}"


def commit_of(name: str, revision: str | None) -> str | None:
    """Return the commit of a hub model in the local cache; None: it is not there, or not of the hub.

    revision: branch, tag or commit; None: the default branch.
    """
    if local_path(name).is_dir():
        return None
    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a built-in model, or a directory that is no longer there
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None


def commit_or_revision(name: str, revision: str | None) -> str | None:
    """Return the commit of a hub model in the local cache, which stays when its branches move; of any other model, the revision as it is."""
    return commit_of(name, revision) or revision


def load_tokenizer(path: str, config: ModelConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a hub id or a directory.

    Raises:
        UserError: there is none.
    """
    with _explained(config):
        tokenizer = AutoTokenizer.from_pretrained(path, **_options(path, config))
        if tokenizer.pad_token is None:  # GPT-2 and similar models have none; any token works, because padding is masked
            tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def model_type(config: ModelConfig) -> str:
    """Return the architecture of `model.name`, a hub id or a directory.

    Raises:
        UserError: it does not exist.
    """
    with _explained(config):
        return read_settings(folder_of_transformer(config.name), config).model_type


def load_settings(path: str, config: ModelConfig) -> PretrainedConfig:
    """Return the configuration of a hub id or a directory.

    Raises:
        UserError: it does not exist, or its architecture is unknown.
    """
    with _explained(config):
        return read_settings(path, config)


def load_image_processor(config: ModelConfig) -> Any:
    """Load the image processor of `model.name`.

    Raises:
        UserError: there is none.
    """
    with _explained(config):
        return AutoImageProcessor.from_pretrained(config.name, **_options(config.name, config))


def _options(path: str, config: ModelConfig) -> dict[str, Any]:
    check_remote_code(config)
    options = {"trust_remote_code": config.trust_remote_code}
    return options if Path(path).is_dir() else {**options, "revision": config.revision}


@contextmanager
def _explained(config: ModelConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:  # raised by libraries for invalid files
        raise _explanation(config, error) from error


def _explanation(config: ModelConfig, error: BaseException) -> UserError | RestartableError:
    """Return the error to report for an error of a library, according to its root cause."""
    where, found = f"model.name={config.name}", list(_causes(error))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in found)

    if any_is(RepositoryNotFoundError):
        return UserError(f"{where}: no such folder, and no such model on the hub, or no access to it (private models: run hf auth login)")
    if any_is(RevisionNotFoundError):
        return UserError(f"model.revision={config.revision}: {config.name} has no such revision on the hub")
    if not constants.HF_HUB_OFFLINE and (lost := next((each for each in found if _is_of_network(each)), None)):
        return RestartableError(f"{where}: the hub cannot be reached, or the download stopped ({_first_line(lost)}); try again: the partial download is kept")
    if constants.HF_HUB_OFFLINE and any_is(LocalEntryNotFoundError):
        return UserError(f"{where}: no such folder, and no such model in the local hub cache, where HF_HUB_OFFLINE=1 disables downloads")
    if "pytorch_model.bin" in _first_line(error):
        return UserError(f"{where} has no safetensors weights; pickle files are not read, because they can contain code")
    return UserError(f"{where} cannot be loaded: {_first_line(error)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_network(error: BaseException) -> bool:
    # By name, because the hub client uses httpx or requests depending on its version. HTTP status errors such as 404 are none of these.
    return any(kind.__name__ in ("TransportError", "ConnectionError", "Timeout", "TimeoutError") for kind in type(error).__mro__)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


def tokenizer_as_read(tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> PreTrainedTokenizerBase:
    """Return a copy of an encoder's tokenizer with which other libraries pad and truncate texts in the same way as here.

    max_length: maximum number of tokens; None: unchanged.
    """
    made = copy.deepcopy(tokenizer)
    made.padding_side = "right"
    if max_length is not None:
        made.model_max_length = max_length
    if made.pad_token is None:  # any token works, because padding is masked
        made.add_special_tokens({"pad_token": made.unk_token or made.bos_token or _PADDING})
    return made


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer that returns the model inputs used here: token ids and attention mask.

    It returns no token types, because the two texts of a pair are distinguished by the separator between them, and has no truncation or
    padding left over from its last call.
    """
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids", "attention_mask"]  # the latter is what is saved
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)
