"""Models from the hub: the real client against a small server on this machine that speaks as the hub does."""

import contextlib
import hashlib
import http.server
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from conftest import Outcome
from small_models import save_preset

from metatrain.models import tiny

COMMIT = "c0ffee" * 6 + "abcd"
SEVERAL = """
import contextlib, io, json, sys
from metatrain.cli import run
found = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(arguments)
    found.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""
ROWS = "text,label\nquick and kind,good\na joy to use,good\nlate again,bad\nit broke at once,bad\n"


class Hub(http.server.BaseHTTPRequestHandler):
    """ORG/NAME is the folder of that name; a file in `cut` ends before its end."""

    folder: Path
    address: str
    cut: tuple[str, ...] = ()

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and (repository := self.folder / "/".join(parts[2:4])).is_dir():
            if parts[4:5] == ["revision"] and parts[5] not in ("main", COMMIT):
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            if "tree" in parts:  # of folders, of which there are none
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            files = [{"rfilename": file.name} for file in repository.iterdir()]
            return self._send(200, json.dumps({"id": "/".join(parts[2:4]), "sha": COMMIT, "tags": [], "siblings": files}).encode())
        if len(parts) < 5 or not (self.folder / "/".join(parts[:2])).is_dir():
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        revision, name = parts[3], "/".join(parts[4:])
        if revision not in ("main", COMMIT):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        file = self.folder / "/".join(parts[:2]) / name
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        data = file.read_bytes()
        return self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, cut=name in self.cut)

    def _send(self, code: int, data: bytes, headers: dict[str, str] | None = None, cut: bool = False):
        self.send_response(code)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """The server, with a model, and one whose weights are a pickle."""
    folder, tokenizer = tmp_path / "hub", tiny.tokenizer()
    for name in ("org/whole", "org/pickled"):
        tiny.backbone(len(tokenizer), pooler=False).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "org/pickled/model.safetensors").rename(folder / "org/pickled/pytorch_model.bin")
    handler = type("HubOfFolder", (Hub,), {"folder": folder})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handler.address = f"http://127.0.0.1:{server.server_port}"
        yield handler
        server.shutdown()


@pytest.fixture
def metatrain(hub, tmp_path):
    """The command in a process of its own, whose hub is this one and whose cache is new; `several` runs some in the same process."""
    (tmp_path / "rows.csv").write_text(ROWS)

    def call(*arguments: str, offline: bool = False) -> Outcome:
        return several([*arguments], offline=offline)[0]

    def several(*commands: list[str], offline: bool = False) -> list[Outcome]:
        own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_XET": "1"}
        lines = [[*arguments, "hardware.threads=1", *(["report=false"] if arguments[0] != "predict" else [])] for arguments in commands]
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, json.dumps(lines)], cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True, check=True
        )
        return [Outcome(*found) for found in json.loads(done.stdout.splitlines()[-1])]

    call.several = several
    return call


@pytest.mark.slow
def test_a_model_of_the_hub_is_fetched_once(metatrain, hub, tmp_path):
    finetune = ["finetune", "checkpoint=org/whole", "data.train=rows.csv"]
    found, nothing = metatrain.several([*finetune, "hydra.run.dir=online"], ["finetune", "checkpoint=org/nothing", "data.train=rows.csv"])
    assert found.code == 0, found.err
    assert nothing.code == 2 and "model.name=org/nothing: no such folder, and no such model on the hub" in nothing.err
    assert "model: loading org/whole from the hub or its local cache" in found.out and f"model: org/whole at {COMMIT}, " in found.out
    shutil.rmtree(hub.folder)  # nothing is to be had any more
    pickled = ["finetune", "checkpoint=org/pickled", "data.train=rows.csv"]
    again, other = metatrain.several([*finetune, "hydra.run.dir=offline"], pickled, offline=True)
    assert again.code == 0, again.err
    files = [tmp_path / folder / "model" / "0_Transformer" / "model.safetensors" for folder in ("online", "offline")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert other.code == 2 and "no such model in the local hub cache" in other.err


@pytest.mark.nightly
def test_a_terminal_shows_how_far_a_download_is(hub, tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)
    shown = b""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "TERM": "xterm"}
        settings = ["checkpoint=org/whole", "data.train=rows.csv", "report=false", "hardware.threads=1"]
        kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"}
        os.execve(sys.executable, [sys.executable, "-m", "metatrain", "finetune", *settings], {**kept, **own})
    termios.tcsetwinsize(terminal, (40, 120))
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while part := os.read(terminal, 65536):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert b"model.safetensors: 100%" in shown and b"Loading weights" not in shown


@pytest.mark.nightly  # in every test run, the first test has a model that is not there
def test_what_the_hub_has_not_is_said_in_a_line(metatrain, tmp_path):
    expected = {
        ("finetune", "checkpoint=org/nothing", "data.train=rows.csv"): "model.name=org/nothing: no such folder, and no such model on the hub",
        ("finetune", "checkpoint=org/pickled", "data.train=rows.csv"): "model.name=org/pickled has no safetensors weights",
        ("finetune", "checkpoint=org/whole", "data.train=rows.csv", "model.revision=v2"): "model.revision=v2: org/whole has no such revision",
        ("train", "model=hub", "model.name=org/whole", "model.revision=v2"): "model.revision=v2: org/whole has no such revision",
    }
    for words, found in zip(expected.values(), metatrain.several(*map(list, expected)), strict=True):
        assert found.code == 2, found.out + found.err
        assert found.err.startswith(f"metatrain: error: {words}") and found.err.count("\n") == 1
    assert not list(tmp_path.glob("outputs/*/*/*"))  # and nothing is left


@pytest.mark.nightly
def test_weights_that_break_off_can_be_fetched_again(metatrain, hub):
    hub.cut = ("model.safetensors",)
    finetune = ["finetune", "checkpoint=org/whole", "data.train=rows.csv"]
    found = metatrain(*finetune)
    hub.cut = ()
    assert found.code == 75, found.out + found.err
    last = found.err.splitlines()[-1]  # before it, the hub's client says that it tries again
    assert last.startswith("metatrain: error: model.name=org/whole: the hub cannot be reached, or the download stopped") and "try again" in last
    again = metatrain(*finetune)
    assert again.code == 0, again.err


@pytest.mark.slow
def test_an_adapter_keeps_the_commit_of_its_base(metatrain, hub, tmp_path):
    save_preset("llama", hub.folder / "org/lm")
    finetune = ["finetune", "checkpoint=org/lm", "data.train=rows.csv", "data.target=label"]
    predict = ["predict", "model=run/model", "text=quick and kind"]
    made, before = metatrain.several([*finetune, "hydra.run.dir=run"], predict)
    assert made.code == 0, made.out + made.err
    facts = json.loads((tmp_path / "run/model/adapter_config.json").read_text())
    assert (facts["base_model_name_or_path"], facts["revision"]) == ("org/lm", COMMIT)
    assert "base_model: org/lm" in (tmp_path / "run/model/README.md").read_text()
    moved = tmp_path / "cache/hub/models--org--lm/refs/main"
    assert moved.read_text() == COMMIT
    moved.write_text("f" * 40)  # the default branch is another commit now
    again, of_main = metatrain.several(predict, finetune, offline=True)
    assert again.code == 0, again.err
    assert again.out == before.out and of_main.code == 2


@pytest.mark.slow
def test_a_run_is_resumed_with_the_commit_that_it_began_with(metatrain, hub, tmp_path):
    train = ["train", "debug=fast", "model=hub", "model.name=org/whole", "evaluation.arms=[]", "validation.every=0", "hydra.run.dir=run", "outer.steps=1"]
    (made,) = metatrain.several(train)
    assert made.code == 0, made.out + made.err
    assert json.loads((tmp_path / "run/run.json").read_text())["model_commit"] == COMMIT
    (tmp_path / "cache/hub/models--org--whole/refs/main").write_text("f" * 40)
    resumed, other = metatrain.several(["resume", "run", "outer.steps=2"], [*train[:-2], "hydra.run.dir=other"], offline=True)
    assert resumed.code == 0, resumed.err
    assert f"model: org/whole at {COMMIT}, " in resumed.out and other.code == 2  # the default branch has no weights here
