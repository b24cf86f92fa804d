"""Models go to the hub by an explicit command alone."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled


class Hub:
    """Stands in for the hub: remembers what it was asked."""

    asked: list = []

    def create_repo(self, repo, private, exist_ok):
        self.asked.append(("create", repo, private, exist_ok))
        return SimpleNamespace(repo_id=repo)

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.asked.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir()), commit_message))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}")


@pytest.fixture
def hub(monkeypatch):
    Hub.asked = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def test_a_run_is_pushed_as_its_model_directory(cli, tiny_run, hub):
    found = cli("push", f"model={tiny_run}", "repo=me/few")
    assert found.code == 0, found.err
    (create, upload) = hub.asked
    assert create == ("create", "me/few", True, True)  # private unless it is asked for
    assert upload[1] == "me/few" and {"config.json", "model.safetensors", "adaptation.json", "README.md"} <= set(upload[2])
    assert "https://hub/me/few" in found.out


@pytest.mark.parametrize(("error", "words"), [(LocalTokenNotFoundError("no"), "hf auth login"), (OfflineModeIsEnabled("offline mode"), "rejected")])
def test_what_goes_wrong_is_one_line(cli, tiny_run, hub, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(hub, "create_repo", fail)
    found = cli("push", f"model={tiny_run}", "repo=me/few")
    assert found.code == 2 and words in found.err and "Traceback" not in found.err


def test_what_is_no_model_is_refused_before_the_hub_is_asked(cli, tmp_path, hub):
    found = cli("push", f"model={tmp_path}", "repo=me/few")
    assert found.code == 2 and "not a model directory" in found.err and not hub.asked
