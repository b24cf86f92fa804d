"""Secrets that are set in the environment, or given by mistake, are found nowhere afterwards."""

import os

from conftest import spawn
from faults.injection import report

SECRETS = {
    "WANDB_API_KEY": "3f1c" + "a7" * 18,
    "HF_TOKEN": "hf_" + "Zq9" * 11,
    "HUGGING_FACE_HUB_TOKEN": "hf_" + "Xw8" * 11,
    "AWS_SECRET_ACCESS_KEY": "wJalr" + "Kx7" * 11,
    "MY_PASSWORD": "correct-horse-" + "battery" * 2,
}


def found_below(folder, secrets) -> list[str]:
    return [
        f"{path}: {name}"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for name, secret in secrets.items()
        if secret.encode() in path.read_bytes() or secret in path.name
    ]


def test_secrets_of_the_environment_are_written_nowhere(tmp_path):
    environment = {**os.environ, **SECRETS, "WANDB_MODE": "offline", "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    settings = ["debug=fast", "outer.steps=2", "evaluation.episodes=1", "tracking=offline", "hydra.run.dir=run"]
    process = spawn("train", *settings, cwd=tmp_path, env=environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert list((tmp_path / "run" / "wandb").rglob("*.wandb"))
    assert found_below(tmp_path, SECRETS) == []
    assert not [name for name, secret in SECRETS.items() if secret in out + err]
    report("secrets", planted=len(SECRETS), found=0)


def test_a_secret_that_is_given_as_a_setting_is_not_repeated(cli, tmp_path):
    given = {"tracking.api_key": "k3y" * 12, "hub_token": "t0k" * 12, "model.token": "s3c" * 12}
    for key, secret in given.items():
        for prefix in ("", "+", "++"):
            found = cli("train", "debug=fast", f"{prefix}{key}={secret}")
            assert found.code == 2
            assert secret not in found.out + found.err
    assert found_below(tmp_path, given) == []
    report("secrets", planted=len(given), found=0)
