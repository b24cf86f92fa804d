"""The web application of `metatrain serve`: tasks on one model, as JSON over HTTP, with a page to try them."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.middleware.trustedhost import TrustedHostMiddleware

from metatrain.errors import UserError, one_line
from metatrain.inputs import check_not_blank, read_text
from metatrain.models.decisions import decided
from metatrain.serving.bodies import Example, Examples, Health, NewTask, Prediction, Predictions, Ranked, TaskContent, TaskFacts, Text, Texts
from metatrain.serving.limits import LimitBody
from metatrain.serving.store import NAME, Stored, TaskStore
from metatrain.serving.worker import Busy, Worker
from metatrain.version import __version__

_PAGES = {"/": ("page.html", "text/html"), "/docs": ("docs.html", "text/html")}
_PAGES |= {"/page.js": ("page.js", "text/javascript"), "/docs.js": ("docs.js", "text/javascript"), "/page.css": ("page.css", "text/css")}
_ONLY_FROM_HERE = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}

Name = Annotated[str, Path(pattern=f"^{NAME.pattern}$", description="lower-case letters, digits, - and _; at most 64")]


@dataclass(frozen=True)
class Limits:
    """Limits on the requests that a server accepts."""

    texts: int  # per request to predict
    examples: int  # of a task
    body: int  # bytes
    hosts: tuple[str, ...] = ("*",)  # names by which clients call this server, against pages of other sites that resolve to it


class _Ascii(JSONResponse):
    """JSON of any text, half characters too, which UTF-8 cannot have."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def application(store: TaskStore, worker: Worker, checkpoint: str, limits: Limits, token: str | None) -> FastAPI:
    """Return the web application; token: that clients have to send, None: everyone may use it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.stop()
        store.close()

    def check_token(given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
        if token is not None and (given is None or not secrets.compare_digest(given.credentials.encode(), token.encode())):
            raise HTTPException(401, "send the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    app = FastAPI(
        title="metatrain", version=__version__, description="Few-shot classifiers on one model.",
        docs_url=None, redoc_url=None, lifespan=lifespan, default_response_class=_Ascii,
    )  # fmt: skip
    app.add_middleware(LimitBody, max_bytes=limits.body)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(limits.hosts))
    app.exception_handler(RequestValidationError)(_refused_body)
    app.exception_handler(UserError)(_refused)
    app.exception_handler(Busy)(_busy)
    app.include_router(_routes(store, worker, limits), dependencies=[Depends(check_token)])
    _add_pages(app)

    @app.get("/health", tags=["server"])
    async def health() -> Health:
        """Return that the server runs; needs no token."""
        return Health(status="ok", checkpoint=checkpoint, tasks=len(store), version=__version__)

    return app


def _routes(store: TaskStore, worker: Worker, limits: Limits) -> APIRouter:
    routes = APIRouter(prefix="/tasks", tags=["tasks"])

    def found(name: str) -> Stored:
        with _there_is(name):
            return store[name]

    async def learned(name: str, examples: list[Example], more_than: int, work: Callable[[list[tuple[Text, str]]], Stored]) -> TaskFacts:
        if more_than + len(examples) > limits.examples:
            raise HTTPException(422, f"a task has at most {limits.examples} examples (max_examples)")
        for number, each in enumerate(examples):
            check_not_blank(each.text, f"examples[{number}].text")
        with _there_is(name):
            return _facts(name, await worker.run(lambda: work([(each.text, each.label) for each in examples])))

    @routes.get("")
    async def list_tasks() -> list[TaskFacts]:
        """Return all tasks."""
        return [_facts(name, store[name]) for name in store]

    @routes.get("/{name}")
    async def show_task(name: Name) -> TaskContent:
        """Return a task with its examples."""
        stored = found(name)
        return TaskContent(**_facts(name, stored).model_dump(), learned_from=[Example(text=text, label=label) for text, label in stored.examples])

    @routes.put("/{name}")
    async def put_task(name: Name, body: NewTask) -> TaskFacts:
        """Learn a task from examples; a task of this name is replaced. It is on the disk when the answer comes."""
        return await learned(name, body.examples, 0, lambda examples: store.put(name, examples, body.none_of_these))

    @routes.post("/{name}/examples")
    async def add_examples(name: Name, body: Examples) -> TaskFacts:
        """Learn a task again, with further examples."""
        return await learned(name, body.examples, len(found(name).examples), lambda examples: store.add(name, examples))

    @routes.delete("/{name}", status_code=204)
    async def remove_task(name: Name) -> None:
        """Remove a task."""
        found(name)
        with _there_is(name):
            await worker.run(lambda: store.remove(name))

    @routes.post("/{name}/predict")
    async def predict(name: Name, body: Texts) -> Predictions:
        """Return the labels of texts with their probabilities. Texts of requests that come together are computed together."""
        stored = found(name)
        if len(body.texts) > limits.texts:
            raise HTTPException(422, f"a request has at most {limits.texts} texts (max_texts)")
        texts = [read_text(text, f"texts[{number}]") for number, text in enumerate(body.texts)]
        if not texts:
            return Predictions(predictions=[])
        task = stored.task
        decisions = decided(await worker.scores(task, texts), task.labels, task.threshold, body.top, body.threshold)
        ranked = [[Ranked(label=label, probability=value) for label, value in each.ranked] for each in decisions]
        return Predictions(predictions=[Prediction(label=each.label, labels=labels) for each, labels in zip(decisions, ranked)])

    return routes


@contextmanager
def _there_is(name: str) -> Iterator[None]:
    """Answer 404 where a task is not there, or not any more."""
    try:
        yield
    except KeyError as error:
        raise HTTPException(404, f"there is no task {name}") from error


def _facts(name: str, stored: Stored) -> TaskFacts:
    return TaskFacts(name=name, labels=stored.task.labels, examples=len(stored.examples), none_of_these=stored.none_of_these)


def _add_pages(app: FastAPI) -> None:
    folder = files("metatrain.serving") / "pages"
    for path, (name, kind) in _PAGES.items():
        app.add_api_route(path, _page(Response((folder / name).read_bytes(), media_type=kind, headers=_ONLY_FROM_HERE)), include_in_schema=False)


def _page(response: Response) -> Callable[[], Response]:
    def show() -> Response:
        return response

    return show


async def _refused_body(request: Request, error: Exception) -> Response:
    """Answer a body that is not as described: which of its values, and why; without the value, which may be no JSON."""
    assert isinstance(error, RequestValidationError)
    reasons = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]]
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and any(each["loc"] == ("body",) for each in error.errors()):
        reasons.insert(0, "send the header Content-Type: application/json, and a JSON object as body")
    return _Ascii({"detail": "; ".join(reasons)}, 422)


async def _refused(request: Request, error: Exception) -> Response:
    return _Ascii({"detail": one_line(error)}, 422)


async def _busy(request: Request, error: Exception) -> Response:
    return _Ascii({"detail": "too many texts wait; try again"}, 503, {"Retry-After": "1"})
