"""A real registry node that speaks EPCIS over HTTP: signs as its own zone, writes with a token, reads open or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from idtrace.serving.keyfile import write_private_key
from tests.capture_fixtures import owner
from tests.nodes import Node, Nodes, free_port

PARTY = "88.118"
TOKEN = "writer-token-0123456789abcdef-0123"
READER = "reader-token-0123456789abcdef-4567"
JSON = "application/json"
JSON_LD = "application/ld+json"
WRITES = {"authorization": f"Bearer {TOKEN}"}


@dataclass
class Site:
    """A node, and a client of its EPCIS interface with the writer's token."""

    node: Node
    url: str
    client: httpx.AsyncClient

    async def post(self, path: str, value: Any, media_type: str = JSON_LD, **headers: str) -> httpx.Response:
        data = value if isinstance(value, bytes) else json.dumps(value, default=float).encode()
        return await self.client.post(path, content=data, headers={"content-type": media_type, **headers})

    async def captured(self, value: Any, media_type: str = JSON_LD, **headers: str) -> dict[str, Any]:
        """Capture a document, and wait for its job to end."""
        answer = await self.post("/capture", value, media_type, **headers)
        assert answer.status_code == 202, answer.text
        async with asyncio.timeout(30):
            while True:
                job: dict[str, Any] = (await self.client.get(answer.headers["location"])).json()
                if not job["running"]:
                    return job
                await asyncio.sleep(0.01)

    async def all_events(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """The events of all pages."""
        return [one for page in await self.pages(path, **parameters) for one in page]

    async def pages(self, path: str, **parameters: Any) -> list[list[dict[str, Any]]]:
        found: list[list[dict[str, Any]]] = []
        answer = await self.client.get(path, params=parameters)
        while True:
            assert answer.status_code == 200, answer.text
            found.append(events_in(answer.json()))
            if "next" not in answer.links:
                return found
            assert len(found) < 1_000
            answer = await self.client.get(answer.links["next"]["url"])


def events_in(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["epcisBody"]["queryResults"]["resultsBody"]["eventList"]
    return found


@asynccontextmanager
async def epcis_site(folder: Path, *, reading: str = "open", **settings: Any) -> AsyncIterator[Site]:
    write_private_key(folder / "party.key", owner(PARTY)._private, None)  # type: ignore[attr-defined] # of tests
    tokens = folder / "tokens"
    tokens.write_text(f"# who writes\n{TOKEN}\n\n{READER}\n")
    tokens.chmod(0o600)
    listen = f"127.0.0.1:{free_port()}"
    async with Nodes(folder) as nodes:
        await nodes.registry("")
        await nodes.registry("88")
        node = await nodes.registry(
            PARTY,
            events={"listen": listen, "tokens": "tokens", "reading": reading},
            **{"capture": {"key": "party.key", "party": PARTY}, **settings},
        )
        url = f"http://{listen}"
        async with httpx.AsyncClient(base_url=url, headers=WRITES, trust_env=False, timeout=30.0) as client:
            yield Site(node, url, client)
