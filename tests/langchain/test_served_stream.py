"""A chat model behind a web service that streams, as LangServe and FastAPI users write it."""

import asyncio
import json

import pytest
from langchain_core.messages import AIMessageChunk

from tests.langchain.scripted_chat import metadata_of, scripted, whole
from uq_llm_integrations import ChatVLLMUncertainty, HighUncertaintyError, ScriptedBackend

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
from fastapi.responses import StreamingResponse  # noqa: E402  # once it is known to be there


def service(chat):
    """A service whose answers are server-sent events, one a chunk."""
    app = fastapi.FastAPI()

    async def events(question):
        try:
            async for chunk in chat.astream(question):
                yield f"data: {chunk.model_dump_json()}\n\n"
        except HighUncertaintyError as error:
            yield f"event: error\ndata: {json.dumps({'why': str(error)})}\n\n"

    @app.get("/stream")
    async def stream(question: str) -> StreamingResponse:
        return StreamingResponse(events(question), media_type="text/event-stream")

    return app


def chunks_of(lines):
    return [AIMessageChunk.model_validate_json(line.removeprefix("data: ")) for line in lines]


async def answered(chat, question="?"):
    transport = httpx.ASGITransport(app=service(chat))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        response = await client.get("/stream", params={"question": question})
        return [line for line in response.text.splitlines() if line]


async def test_a_client_adds_the_events_up_to_what_invoke_returns():
    chat = scripted("Über Öl. 🙂")
    lines = await answered(chat)
    assert len(lines) > 1
    streamed, invoked = whole(chunks_of(lines)), chat.invoke("?")
    for message in (streamed, invoked):
        metadata_of(message)["usage"].pop("seconds")
    assert streamed.content == invoked.content
    assert metadata_of(streamed) == metadata_of(invoked)
    assert streamed.usage_metadata == invoked.usage_metadata


async def test_clients_at_the_same_time_get_answers_of_their_own():
    chat = ChatVLLMUncertainty(backend=ScriptedBackend({"a": ["Oslo."], "b": ["Rome."]}))
    both = await asyncio.gather(answered(chat, "a"), answered(chat, "b"))
    assert [whole(chunks_of(lines)).content for lines in both] == ["Oslo.", "Rome."]


async def test_an_error_within_the_stream_can_be_told_to_the_client():
    options = {"uncertain_when": "mean_nll > 0", "on_high_uncertainty": "raise"}
    *_, kind, data = await answered(scripted("Oslo.", **options))
    assert kind == "event: error" and "mean_nll > 0" in data


class Watched(ScriptedBackend):
    """Says when its stream is closed."""

    def __init__(self, script):
        super().__init__(script)
        self.closed = asyncio.Event()

    async def stream(self, request):
        try:
            async for piece in super().stream(request):
                yield piece
                await asyncio.sleep(0)
        finally:
            self.closed.set()


async def test_a_client_that_goes_away_ends_the_work():
    backend = Watched(["word " * 200])
    app, gone, sent = service(ChatVLLMUncertainty(backend=backend)), asyncio.Event(), []

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body":
            gone.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/stream",
        "raw_path": b"/stream",
        "root_path": "",
        "scheme": "http",
        "query_string": b"question=hello",
        "headers": [],
        "server": ("service", 80),
        "client": ("client", 1),
    }
    await app(scope, receive, send)
    async with asyncio.timeout(60):
        await backend.closed.wait()
    assert len(sent) < 500, "the answer was not written to its end"
