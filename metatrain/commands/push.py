"""`metatrain push`: upload a model directory to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import PushConfig

USAGE = """\
usage: metatrain push model=DIR|latest repo=ORG/NAME [public=true]

Upload a model directory with its model card to the Hugging Face hub, as a private repository unless public=true. First run `hf auth login`.

examples:
  metatrain push model=latest repo=ORG/NAME
"""
SHOWN = (
    "model.path",
    "repo",
    "public",
    "message",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("push", arguments, PushConfig, start, effects=effects_of_use)


def start(config: PushConfig, path: Path, overrides: list[str]) -> None:
    """Create the repository if it does not exist, and upload the directory as one commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    from metatrain.errors import UserError
    from metatrain.models.folders import is_model, model_folder
    from metatrain.paths import local_path

    folder = model_folder(local_path(config.model.path))
    if not is_model(folder):
        raise UserError(f"model={config.model.path}: not a model directory (no config.json); give a run of train or finetune, or its model/")
    api = HfApi()
    try:
        repo = api.create_repo(config.repo, private=not config.public, exist_ok=True).repo_id
        made = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=config.message)
    except LocalTokenNotFoundError as error:
        raise UserError("no access token for the hub: run `hf auth login`, or set HF_TOKEN") from error
    except HFValidationError as error:
        raise UserError(f"repo={config.repo}: {error}") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        raise UserError(f"the hub rejected {folder}: {str(error).strip().splitlines()[0]}") from error
    print(f"uploaded {folder} to {made.commit_url}")
