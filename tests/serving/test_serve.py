"""`metatrain serve`: tasks over HTTP. Every bad body is answered with a 4xx and a reason; what was answered is on the disk."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files

import httpx2
import pytest
import torch
import uvicorn
from fastapi import Response
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metatrain
from metatrain.api import Origin, open_model
from metatrain.errors import UserError
from metatrain.models.finetuned_folder import NONE
from metatrain.run.config import HardwareConfig
from metatrain.serving.app import Limits, application
from metatrain.serving.store import TaskStore
from metatrain.serving.worker import Worker

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)
LABELLED = [("it broke", "bad"), ("useless, loose", "bad"), ("best tool", "good"), ("quiet, strong", "good")]
EXAMPLES = [{"text": text, "label": label} for text, label in LABELLED]
LIMITS = Limits(texts=20, examples=12, body=20_000)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return open_model(Origin("tiny", fit_head=True, adapt="head"), HardwareConfig(device="cpu", threads=1))


@pytest.fixture
def client(model, tmp_path):
    with serving(model, tmp_path) as found:
        yield found


def serving(model, folder, token=None, max_tasks=5, limits=LIMITS):
    app = application(TaskStore(model, folder, max_tasks), Worker(model), "tiny", limits, token)
    return TestClient(app, headers={} if token is None else {"Authorization": f"Bearer {token}"})


def test_a_task_is_created_extended_used_and_removed(client, model, tmp_path):
    made = client.put("/tasks/reviews", json={"examples": EXAMPLES})
    assert made.status_code == 200 and made.json() == {"name": "reviews", "labels": ["bad", "good"], "examples": 4, "none_of_these": None}
    assert client.get("/tasks").json() == [made.json()]
    texts = ["it broke", "best tool", " quiet "]
    found = client.post("/tasks/reviews/predict", json={"texts": texts, "top": 2}).json()["predictions"]
    task = metatrain.load(tmp_path, device="cpu")["reviews"]  # what is on the disk is what metatrain.load reads
    assert [each["label"] for each in found] == task.predict(texts)
    for each, expected in zip(found, task.probabilities(texts), strict=True):
        assert {label["label"]: label["probability"] for label in each["labels"]} == pytest.approx(dict(zip(task.labels, expected.tolist())), abs=1e-6)
    more = client.post("/tasks/reviews/examples", json={"examples": [{"text": "so so", "label": "fair"}]})
    assert more.json()["labels"] == ["bad", "fair", "good"] and more.json()["examples"] == 5
    assert client.get("/tasks/reviews").json()["learned_from"][-1] == {"text": "so so", "label": "fair"}
    assert client.get("/health").json()["tasks"] == 1
    assert client.delete("/tasks/reviews").status_code == 204 and not list(tmp_path.glob("*.safetensors"))
    assert client.post("/tasks/reviews/predict", json={"texts": ["a"]}).status_code == 404


def test_tasks_are_there_again_after_a_restart(model, tmp_path):
    pairs = [{**each, "text": [each["text"], "a second text"]} for each in EXAMPLES]
    with serving(model, tmp_path) as first:
        first.put("/tasks/one", json={"examples": EXAMPLES, "none_of_these": 0.25})
        first.put("/tasks/two", json={"examples": pairs})
        before = [first.get(f"/tasks/{name}").json() for name in ("one", "two")]
        scores = first.post("/tasks/two/predict", json={"texts": [["it broke", "today"]]}).json()
        with pytest.raises(UserError, match="is served by another process"):
            TaskStore(model, tmp_path, 5)
    (tmp_path / ".three.safetensors.tmp").write_bytes(b"half")
    with serving(model, tmp_path) as second:
        assert [second.get(f"/tasks/{name}").json() for name in ("one", "two")] == before
        assert second.post("/tasks/two/predict", json={"texts": [["it broke", "today"]]}).json() == scores
        assert not (tmp_path / ".three.safetensors.tmp").exists()


def test_out_of_scope_and_thresholds(model, tmp_path):
    with serving(model, tmp_path) as client:
        client.put("/tasks/t", json={"examples": EXAMPLES, "none_of_these": 0.999})
        assert {each["label"] for each in client.post("/tasks/t/predict", json={"texts": ["a", "b"]}).json()["predictions"]} <= {NONE, "bad", "good"}
        client.put("/tasks/t", json={"examples": EXAMPLES})
        assert client.post("/tasks/t/predict", json={"texts": ["a"], "threshold": 1}).json()["predictions"][0]["label"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("put", "/tasks/t", {"examples": EXAMPLES[:2]}, 422, "at least two labels"),
        ("put", "/tasks/t", {"examples": []}, 422, "body.examples"),
        ("put", "/tasks/t", {"examples": [{"text": "a"}]}, 422, "body.examples.0.label: Field required"),
        ("put", "/tasks/t", {"examples": [*EXAMPLES, {"text": "a", "label": ""}]}, 422, "body.examples.4.label: String should have at least 1 character"),
        ("put", "/tasks/t", {"examples": [*EXAMPLES, {"text": " \n", "label": "bad"}]}, 422, "examples[4].text is empty"),
        ("post", "/tasks/there/examples", {"examples": [{"text": ["", " "], "label": "bad"}]}, 422, "examples[0].text is empty"),
        ("put", "/tasks/t", {"examples": EXAMPLES, "more": 1}, 422, "body.more: Extra inputs are not permitted"),
        ("put", "/tasks/t", {"examples": EXAMPLES, "none_of_these": 2}, 422, "less than 1"),
        ("put", "/tasks/t", {"examples": EXAMPLES * 4}, 422, "at most 12 examples (max_examples)"),
        ("put", "/tasks/t", {"examples": [*EXAMPLES, {"text": "a", "label": "bad "}]}, 422, "look the same"),
        ("put", "/tasks/T..", {"examples": EXAMPLES}, 422, "path.name"),
        ("put", "/tasks/" + "a" * 65, {"examples": EXAMPLES}, 422, "path.name"),
        ("post", "/tasks/t/examples", {"examples": EXAMPLES}, 404, "no task t"),
        ("delete", "/tasks/t", None, 404, "no task t"),
        ("get", "/tasks/t", None, 404, "no task t"),
        ("post", "/tasks/there/predict", {"texts": "one"}, 422, "body.texts"),
        ("post", "/tasks/there/predict", {"texts": ["a"] * 21}, 422, "at most 20 texts (max_texts)"),
        ("post", "/tasks/there/predict", {"texts": ["a"], "top": 0}, 422, "greater than or equal to 1"),
        ("post", "/tasks/there/predict", {"texts": ["a" * 30_000]}, 413, "larger than 20000 bytes (max_body_mb)"),
        ("patch", "/tasks/there", {}, 405, "Method Not Allowed"),
    ],
)
def test_bad_requests_are_refused_with_a_reason(client, method, path, body, status, words):
    client.put("/tasks/there", json={"examples": EXAMPLES})
    found = client.request(method, path, **({} if body is None else {"json": body}))
    assert found.status_code == status and words in found.json()["detail"], found.text
    assert [each["name"] for each in client.get("/tasks").json()] == ["there"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"texts": ["\\ud800"]}', b'{"texts": ["a"], "threshold": NaN}', b"[" * 5000, b'{"top": 1' + b"0" * 5000 + b"}"]
)
def test_bodies_that_are_no_json_or_no_text(client, content):
    client.put("/tasks/t", json={"examples": EXAMPLES})
    found = client.post("/tasks/t/predict", content=content, headers={"Content-Type": "application/json"})
    assert 400 <= found.status_code < 500 and found.json()["detail"], found.text


def test_a_body_without_its_kind_says_which_header_to_send(client):
    found = client.put("/tasks/t", content=json.dumps({"examples": EXAMPLES}), headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert found.status_code == 422 and "Content-Type: application/json" in found.json()["detail"]
    assert client.put("/tasks/t", content=json.dumps({"examples": EXAMPLES}), headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 200


@pytest.mark.parametrize("asks", [True, False])
def test_a_client_that_sends_too_much_gets_the_reason(model, tmp_path, asks):
    """Over a socket: one that asks first is refused before it sends; one that does not has sent everything when the answer comes, not a reset."""
    size = 10 * LIMITS.body
    with TestClient(serving(model, tmp_path).app) as client, listening(client.app) as address:
        host, port = address.removeprefix("http://").split(":")
        head = f"POST /tasks/t/predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
        with socket.create_connection((host, int(port)), timeout=30) as sent:
            sent.sendall(f"{head}{'Expect: 100-continue' if asks else 'Accept: */*'}\r\n\r\n".encode())
            for _ in range(0 if asks else 10):
                time.sleep(0.02)
                sent.sendall(b"x" * LIMITS.body)
            answer = b"".join(iter(lambda: sent.recv(4096), b"")).decode()
        assert answer.startswith("HTTP/1.1 413") and f"larger than {LIMITS.body} bytes (max_body_mb)" in answer


def test_the_number_of_tasks_is_limited(client):
    assert [client.put(f"/tasks/t{number}", json={"examples": EXAMPLES}).status_code for number in range(6)] == [200] * 5 + [422]
    assert client.put("/tasks/t0", json={"examples": EXAMPLES}).status_code == 200  # that replaces one


def test_a_token_is_asked_for(model, tmp_path):
    with serving(model, tmp_path, token="secret") as client:
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic abc"}):
            found = client.get("/tasks", headers=headers)
            assert found.status_code == 401 and "Authorization: Bearer TOKEN" in found.json()["detail"]
        assert client.get("/health", headers={"Authorization": ""}).status_code == 200
    with serving(model, tmp_path, token="secret") as client:
        assert client.get("/tasks").status_code == 200


def test_pages_of_other_sites_reach_nothing(model, tmp_path):
    with serving(model, tmp_path, limits=Limits(20, 12, 20_000, ("127.0.0.1", "localhost"))) as client:
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400
        assert client.get("/health", headers={"Host": "localhost:8000"}).status_code == 200
        headers = {"Host": "localhost:8000", "Content-Type": "text/plain"}  # what a form of another site can send
        assert client.put("/tasks/t", content=json.dumps({"examples": EXAMPLES}), headers=headers).status_code == 422


def content_of(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), content_of, max_leaves=6)
odd_text = st.text(st.characters(exclude_categories=()), max_size=8)
examples = st.lists(st.fixed_dictionaries({"text": odd_text | anything, "label": odd_text | anything}), max_size=4)
texts = st.lists(odd_text | st.lists(odd_text, max_size=3), max_size=4) | anything
bodies = st.one_of(
    anything,
    st.fixed_dictionaries({}, optional={"examples": examples, "none_of_these": anything}),
    st.fixed_dictionaries({}, optional={"texts": texts, "top": anything, "threshold": anything}),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(body=bodies, path=st.sampled_from(["/tasks/t", "/tasks/t/examples", "/tasks/t/predict"]))
def test_no_body_breaks_the_server(client, body, path):
    if client.get("/tasks/t").status_code == 404:
        client.put("/tasks/t", json={"examples": EXAMPLES})
    method = "PUT" if path == "/tasks/t" else "POST"
    found = client.request(method, path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert found.status_code == 200 or (400 <= found.status_code < 500 and isinstance(found.json()["detail"], str)), (body, found.text)


def test_texts_of_requests_that_come_together_are_computed_together(model, tmp_path, monkeypatch):
    batches, scores_of = [], type(model).scores
    monkeypatch.setattr(type(model), "scores", lambda self, requests: batches.append(len(requests)) or scores_of(self, requests))
    tasks = [model.adapt(LABELLED[:count]) for count in (3, 4)]
    worker = Worker(model)

    async def ask():
        return await asyncio.gather(*(worker.scores(tasks[number % 2], [f"text {number}", "it broke"]) for number in range(6)))

    found = asyncio.run(ask())
    worker.stop()
    assert sum(batches) == 6 and len(batches) == 1
    for number, scores in enumerate(found):
        (expected,) = model.scores([(tasks[number % 2], [f"text {number}", "it broke"])])
        assert torch.allclose(torch.tensor(scores), torch.tensor(expected), atol=1e-5)


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.addresses, self.inline = set(), [], 0

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        self.addresses += [found[name] for name in ("src", "href") if name in found]
        self.inline += tag == "style" or (tag == "script" and "src" not in found) or any(name.startswith("on") for name in found)


@pytest.mark.parametrize(("path", "script"), [("/", "page.js"), ("/docs", "docs.js")])
def test_the_pages_need_no_network_and_run_nothing_inline(client, path, script):
    page, code = _Page(), (files("metatrain.serving") / "pages" / script).read_text()
    answer = client.get(path)
    page.feed(answer.text)
    assert answer.headers["content-type"].startswith("text/html") and "default-src 'self'" in answer.headers["content-security-policy"]
    assert not page.inline and script in page.addresses and all(client.get(f"/{each}").status_code == 200 for each in page.addresses)
    assert {name for name in re.findall(r'byId\("(\w+)"\)', code)} <= page.ids
    assert "innerHTML" not in code and "http" not in code


def test_the_routes_that_the_page_calls_exist(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/tasks", "/tasks/{name}", "/tasks/{name}/examples", "/tasks/{name}/predict", "/health"}
    assert described["components"]["schemas"]["NewTask"]["properties"]["none_of_these"]["description"]


# A person's keys and clicks: makes a task and changes it, opens one of somebody else, and tries to write over a third; leaves in the title what was seen.
PERSON = """
const field = (id) => document.getElementById(id);
const type = (place, text) => { place.value = text; place.dispatchEvent(new Event("input", { bubbles: true })); };
const until = async (condition) => { while (!condition()) await new Promise((done) => setTimeout(done, 20)); };
const said = (words) => until(() => field("status").textContent.includes(words));
const rows = () => [...field("predictions").rows].map((row) => [...row.cells].map((cell) => cell.textContent));
const examples = () => [...document.querySelectorAll("#classes .examples")].map((each) => each.value);
(async () => {
  const seen = {};
  type(field("texts"), "it broke\\n<img src=x>");
  await said("learned from 6 examples");
  seen.first = rows();
  type(document.querySelector("#classes .label"), "late");
  type(document.querySelector("#classes .examples"), "it broke");
  await said("learned from 4 examples");
  seen.second = rows();
  field("name").value = "strict";
  field("open").click();
  await said("strict:");
  seen.opened = examples();
  type(field("texts"), "quiet");
  await until(() => rows().length === 1);
  field("name").value = "taken";
  type(field("texts"), "quiet tool");
  await said("already");
  field("open").click();
  await said("pairs");
  seen.kept = examples();
  field("name").value = "playground";
  field("remove").click();
  await said("Removed");
  seen.left = [...document.querySelectorAll("#tasks option")].map((each) => each.value);
  document.title = JSON.stringify(seen);
})();
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_page_in_a_browser_learns_what_is_typed_and_changes_no_other_task(model, tmp_path):
    app = serving(model, tmp_path).app
    with TestClient(app) as client:
        client.put("/tasks/strict", json={"examples": EXAMPLES, "none_of_these": 0.2})
        client.put("/tasks/taken", json={"examples": [{**each, "text": [each["text"], "a hypothesis"]} for each in EXAMPLES]})
        before = {name: client.get(f"/tasks/{name}").json() for name in ("strict", "taken")}
        page = client.get("/")
        html, headers = page.text.replace("</head>", '<script src="person.js" defer></script></head>'), dict(page.headers)
        headers.pop("content-length")
        app.add_api_route("/person", lambda: Response(html, headers=headers))
        app.add_api_route("/person.js", lambda: Response(PERSON, media_type="text/javascript"))
        with listening(app) as address:
            command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom", f"{address}/person"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        title = unescape(re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)[1])
        assert title.startswith("{"), re.search('<p id="status".*?</p>', done.stdout)
        seen = json.loads(title)
        assert [row[0] for row in seen["first"]] == ["it broke", "<img src=x>"]  # a text, not an element
        assert {row[1] for row in seen["first"]} <= {"delivery", "damage"}
        assert seen["second"][0][1] == "late" and seen["second"] != seen["first"]
        assert seen["opened"] == ["it broke\nuseless, loose", "best tool\nquiet, strong"] == seen["kept"]
        assert seen["left"] == ["strict", "taken"]
        assert {name: client.get(f"/tasks/{name}").json() for name in before} == before


@contextmanager
def listening(app):
    """Serve an application whose lifespan is already open, at a free port; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield "http://{}:{}".format(*server.servers[0].sockets[0].getsockname())
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join()


def test_settings_that_cannot_be_are_refused(cli, monkeypatch):
    monkeypatch.delenv("METATRAIN_TOKEN", raising=False)
    for setting, words in (("port=70000", "port=70000 must be between"), ("max_texts=0", "must be positive"), ("host=0.0.0.0", "METATRAIN_TOKEN")):
        found = cli("serve", setting)
        assert found.code == 2 and words in found.err, found.err


@pytest.mark.nightly  # in every test run, test_tasks_are_there_again_after_a_restart restarts within one process
def test_kill_loses_no_task_and_a_stop_is_graceful(tmp_path):
    """Tasks are created until the server is killed; those that were answered are there after a restart, which is then stopped by SIGTERM."""
    answered = []

    def create(address):
        with httpx2.Client(base_url=address, timeout=30) as client:
            for number in range(10_000):
                try:
                    if client.put(f"/tasks/t{number}", json={"examples": EXAMPLES}).status_code == 200:
                        answered.append(f"t{number}")
                except httpx2.HTTPError:
                    return

    server, address = started(tmp_path)
    thread = threading.Thread(target=create, args=(address,))
    thread.start()
    wait_until(lambda: len(answered) >= 5)
    server.send_signal(signal.SIGKILL)
    server.wait()
    thread.join()
    server, address = started(tmp_path)
    with httpx2.Client(base_url=address, timeout=30) as client:
        names = {each["name"] for each in client.get("/tasks").json()}
        assert set(answered) <= names and len(names) <= len(answered) + 1
        assert client.post(f"/tasks/{answered[-1]}/predict", json={"texts": ["it broke"]}).status_code == 200
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=30)
    assert server.returncode == 143 and f"stopped; {len(names)} tasks are in tasks" in err and "Traceback" not in err, err


def started(folder):
    command = [sys.executable, "-m", "metatrain", "serve", "checkpoint=tiny", "folder=tasks", "port=0", "hardware.threads=1"]
    server = subprocess.Popen(command, cwd=folder, env={**os.environ, "METATRAIN_TOKEN": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    assert "serving tiny at" in line, server.communicate()[1]
    return server, re.search(r"http://\S+", line)[0]


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
