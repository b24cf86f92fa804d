"""Limits on requests, before any of their content is parsed."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DRAINED = 16  # times the limit: how much of a body that is too large is read and dropped


class LimitBody:
    """Refuse bodies above a number of bytes with 413; a body is read as a whole before the application sees it.

    A client that is still sending when the connection is closed loses the answer to a reset. So the rest of a body that is too large is read and dropped,
    within a limit; one that asks first (`Expect: 100-continue`) is refused at once.
    """

    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app, self._max = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced(scope) > self._max:
            await self._refuse(scope, receive, send)
            return
        body: list[bytes] = []
        size, more = 0, True
        while more and size <= _DRAINED * self._max:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size <= self._max:
                body.append(part)
        if size > self._max:
            await self._refuse(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": b"".join(body), "more_body": False}]

        async def replayed() -> Any:
            return whole.pop() if whole else await receive()

        await self._app(scope, replayed, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = JSONResponse({"detail": f"the body is larger than {self._max} bytes (max_body_mb)"}, 413, headers={"Connection": "close"})
        await refusal(scope, receive, send)


def _announced(scope: Scope) -> int:
    """Return the number of bytes of a client that waits for leave to send them (RFC 9110, section 10.1.1); 0: it does not wait."""
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    return int(length) if headers.get("expect", "").lower() == "100-continue" and length.isdecimal() else 0
