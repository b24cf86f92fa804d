"""Limits on requests, before any of their content is parsed."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LimitBody:
    """Refuse bodies above a number of bytes with 413; a body is read as a whole before the application sees it."""

    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app, self._max = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body.append(message.get("body", b""))
            size, more = size + len(body[-1]), message.get("more_body", False)
            if size > self._max:
                refusal = JSONResponse({"detail": f"the body is larger than {self._max} bytes (max_body_mb)"}, 413, headers={"Connection": "close"})
                await refusal(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": b"".join(body), "more_body": False}]

        async def replayed() -> Any:
            return whole.pop() if whole else await receive()

        await self._app(scope, replayed, send)
