"""Streams over real gRPC to a node that says and does what a test wants, and to none at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from idtrace.errors import BusyError, IdtraceError, Reason, RefusedError
from idtrace.identifier import Identifier, Prefix
from idtrace.serving.errors import abort
from idtrace.v1 import registry_pb2 as pb
from resolver.cache import AnswerCache
from resolver.driver import Clock
from resolver.following import Following, Watch
from resolver.hearing import Hearing
from resolver.trust import TrustStore
from resolver.watching import CHANGES_MAX, Pace, Watching
from tests.nodes import free_port

ZONE = Prefix.parse("88")
ITEM = Identifier.parse("88.118.8/SN-1")
PACE = Pace(first_seconds=1.0, retry_seconds=0.02, retry_seconds_max=0.1, refused_seconds=0.3, idle_seconds=0.05)
CLOCK = Clock()


@dataclass
class FakeNode:
    """Serves ``Watch``: first what ``begins`` says for a request, then what is put into ``says``."""

    sequence: int = 7
    next_within_ms: int = 500
    refuses: IdtraceError | None = None
    backlog: list[pb.WatchResponse | bytes] = field(default_factory=list)
    asked: list[int | None] = field(default_factory=list)
    open: list[asyncio.Queue[Any]] = field(default_factory=list)
    address: str = ""

    async def watch(
        self, request: pb.WatchRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        self.asked.append(request.after if request.HasField("after") else None)
        if self.refuses is not None:
            await abort(context, self.refuses)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.open.append(queue)
        try:
            if request.HasField("after") and self.backlog:
                for part in self.backlog:
                    yield part if isinstance(part, bytes) else part.SerializeToString()
            else:
                yield self.message().SerializeToString()
            while True:
                said = await queue.get()
                if said is None:
                    return
                if isinstance(said, IdtraceError):
                    await abort(context, said)
                yield said if isinstance(said, bytes) else said.SerializeToString()
        finally:
            self.open.remove(queue)

    def message(self, *changes: pb.Change, sequence: int | None = None) -> pb.WatchResponse:
        number = self.sequence if sequence is None else sequence
        return pb.WatchResponse(sequence=number, changes=changes, next_within_ms=self.next_within_ms)

    def say(self, *changes: pb.Change, sequence: int | None = None) -> None:
        """A new commit, to all streams."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        for queue in self.open:
            queue.put_nowait(self.message(*changes))

    def put(self, said: Any) -> None:
        for queue in self.open:
            queue.put_nowait(said)


def changed(identifier: str = str(ITEM), version: int = 2) -> pb.Change:
    return pb.Change(identifier=identifier, version=version)


@dataclass
class Place:
    node: FakeNode
    following: Following
    hearing: Hearing
    watching: Watching

    @property
    def watch(self) -> Watch:
        """The watch of 88, at the fake node."""
        (found,) = (watch for watch in self.following.watches if watch.zone == ZONE)
        return found

    def live(self) -> bool:
        return self.watch.live(CLOCK.now_ms())


@asynccontextmanager
async def serving(node: FakeNode, *, method: str = "Watch", port: int = 0) -> AsyncIterator[None]:
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        node.watch,
        request_deserializer=pb.WatchRequest.FromString,
        response_serializer=bytes,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("idtrace.v1.RegistryService", {method: handler}),)
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    node.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@asynccontextmanager
async def place(node: FakeNode, *endpoints: str, pace: Pace = PACE) -> AsyncIterator[Place]:
    """A resolver's watches, of which the one of 88 goes to the node; the root's has nowhere to go."""
    following = Following(root_endpoints=(), short_ms=5_000, most=8)
    hearing = Hearing(following=following, cache=AnswerCache(), trust=TrustStore(chain_seconds=300), clock=CLOCK)
    watching = Watching(following, hearing, now_ms=CLOCK.now_ms, pace=pace)
    watching.start()
    watch = following._watch(ZONE, endpoints or (node.address,), CLOCK.now_ms())
    assert watch.since_ms is None
    try:
        yield Place(node, following, hearing, watching)
    finally:
        async with asyncio.timeout(5):
            await watching.close()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("watch")] == []


async def until(what: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():  # noqa: ASYNC110 - what is waited for comes over the network
            await asyncio.sleep(0.005)


async def test_the_first_message_makes_it_live_and_changes_are_taken() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        assert at.following.counters.begun == 1
        before = CLOCK.now_ms()
        node.say(changed(), pb.Change(prefix="88.118", version=3))
        await until(lambda: at.watch.sequence == 8)
        assert at.following.announced.since(ITEM, before)
        assert at.following.counters.announcements == 2
        assert node.asked == [None]


async def test_a_break_is_resumed_from_the_last_whole_message_and_keeps_what_it_knew() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        since_ms = at.watch.since_ms
        node.say(changed())
        await until(lambda: at.watch.sequence == 8)
        node.sequence = 10
        node.backlog = [node.message(changed("88.118.8/SN-2"), sequence=9), node.message(sequence=10)]
        node.put(None)
        await until(lambda: at.following.counters.resumed == 1)
        assert node.asked == [None, None, 8]  # where it stands, then what came since
        assert at.watch.since_ms == since_ms
        assert (at.watch.sequence, at.following.counters.lost, at.following.counters.announcements) == (10, 1, 2)


async def test_a_resumed_watch_is_not_live_before_it_has_caught_up() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        node.sequence = 20
        node.backlog = [node.message(sequence=9)]
        node.put(None)
        await until(lambda: at.watch.sequence == 9)
        assert not at.live()
        await asyncio.sleep(0.1)
        assert not at.live()
        node.say(sequence=20)
        await until(at.live)
        assert at.following.counters.resumed == 1


async def test_after_a_restart_with_older_numbers_everything_is_forgotten() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        first_ms = at.watch.since_ms
        assert first_ms is not None
        await asyncio.sleep(0.01)
        node.sequence = 3
        node.put(None)
        await until(lambda: at.live() and at.following.counters.gone == 1)
        assert at.following.announced.since(ITEM, first_ms + 1)
        assert at.watch.since_ms is not None
        assert at.watch.since_ms > first_ms


async def test_changes_gone_begins_anew_at_once() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        node.put(RefusedError(Reason.CHANGES_GONE, "too long ago"))
        await until(lambda: at.live() and at.following.counters.begun == 2)
        assert at.following.counters.gone == 1
        assert node.asked == [None, None]
        assert at.following.announced.since(ITEM, 0)


async def test_silence_is_a_loss_although_nothing_was_closed() -> None:
    node = FakeNode(next_within_ms=100)
    async with serving(node), place(node) as at:
        await until(at.live)
        await until(lambda: not at.live(), 1.0)
        await until(lambda: len(node.asked) >= 3)
        assert at.following.counters.lost >= 1
        assert len(node.open) <= 1  # the silent one was let go


async def test_signs_of_life_keep_it_live() -> None:
    node = FakeNode(next_within_ms=150)
    async with serving(node), place(node) as at:
        await until(at.live)
        for _ in range(10):
            await asyncio.sleep(0.05)
            node.say(sequence=node.sequence)
            assert at.live()
        assert node.asked == [None]


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff",
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[pb.Change(identifier="99/X", version=1)]),
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[changed(), pb.Change(prefix="", version=1)]),
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[pb.Change(prefix="880", version=1)]),
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[pb.Change(identifier="no slash", version=1)]),
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[pb.Change(prefix="88.A", version=1)]),
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[pb.Change(version=1)]),
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[changed(version=2**53)]),
        pb.WatchResponse(sequence=8, next_within_ms=500, changes=[changed()] * (CHANGES_MAX + 1)),
    ],
    ids=["garbage", "beside", "above", "sibling", "malformed", "upper case", "nothing", "version", "too many"],
)
async def test_what_is_wrong_ends_the_stream_and_none_of_it_is_taken(said: Any) -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        node.put(said)
        await until(lambda: at.following.counters.malformed == 1)
        assert at.following.counters.announcements == 0
        assert len(at.following.announced) == 0
        await until(lambda: at.following.counters.resumed == 1)  # and it is tried again
        assert node.asked == [None, None, 7]


async def test_a_message_beyond_all_bounds_ends_the_stream() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        node.put(bytes(2_000_000))
        await until(lambda: at.following.counters.resumed == 1)
        assert at.following.counters.lost == 1


async def test_a_node_without_the_method_is_left_alone_for_a_while() -> None:
    node = FakeNode()
    async with serving(node, method="Other"), place(node) as at:
        await until(lambda: at.following.counters.refused == 1)
        await asyncio.sleep(0.1)
        assert at.following.counters.refused == 1
        await until(lambda: at.following.counters.refused >= 2)
        assert not at.live()


async def test_a_node_with_none_to_spare_is_left_alone_and_its_sibling_asked() -> None:
    busy, sibling = FakeNode(refuses=BusyError(Reason.OVERLOADED, "too many watches")), FakeNode()
    async with serving(busy), serving(sibling), place(busy, busy.address, sibling.address) as at:
        await until(at.live)
        assert (len(busy.asked), sibling.asked, at.watch.endpoint) == (1, [None], sibling.address)


async def test_nobody_there_and_then_somebody() -> None:
    node = FakeNode()
    port = free_port()
    async with place(node, f"127.0.0.1:{port}") as at:
        await asyncio.sleep(0.2)
        assert not at.live()
        async with serving(node, port=port):
            await until(at.live)


async def test_a_node_that_takes_the_call_and_says_nothing_is_given_up() -> None:
    mute = FakeNode()
    mute.watch = _mute  # type: ignore[method-assign]  # a stream without a first message
    sibling = FakeNode()
    pace = Pace(first_seconds=0.1, retry_seconds=0.02)
    async with serving(mute), serving(sibling), place(mute, mute.address, sibling.address, pace=pace) as at:
        await until(at.live)
        assert at.watch.endpoint == sibling.address


async def _mute(request: pb.WatchRequest, context: Any) -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_a_watch_that_is_not_wanted_any_more_lets_go_of_its_stream() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        watch = at.watch
        at.following._watch(ZONE, ("127.0.0.1:1",), CLOCK.now_ms())
        await until(lambda: not node.open)
        assert not watch.live(CLOCK.now_ms())


async def test_a_flood_leaves_others_their_turn() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        for part in range(10):
            node.say(*(changed(f"88.118.8/F-{part}-{n}") for n in range(CHANGES_MAX)))
        turns = 0
        while at.following.counters.announcements < 10 * CHANGES_MAX:
            await asyncio.sleep(0)
            turns += 1
        assert at.live()
        assert len(at.following.announced) == 10 * CHANGES_MAX
        # Parsed and taken in parts of 256, so others had a turn before each part.
        assert turns >= 2 * 10 * CHANGES_MAX // 256


async def test_more_events_about_a_thing_are_told_to_who_listens_and_put_no_record_in_doubt() -> None:
    node, heard = FakeNode(), list[Identifier]()
    async with serving(node), place(node) as at:
        at.hearing.on_events = heard.append
        await until(at.live)
        before = CLOCK.now_ms()
        node.say(pb.Change(events=str(ITEM)), pb.Change(events="88.118.8/药"))
        await until(lambda: at.watch.sequence == 8)
        assert heard == [ITEM, Identifier.parse("88.118.8/药")]
        assert not at.following.announced.since(ITEM, before)
        assert at.following.counters.announcements == 2
        node.say(pb.Change(events=str(ITEM)), changed())
        await until(lambda: at.watch.sequence == 9)
        assert heard[2:] == [ITEM]
        assert at.following.announced.since(ITEM, before)


@pytest.mark.parametrize("events", ["86.1.5/SN-1", "88.118.8/SN\u202e1", "urn:epc:id:sgln:952005385.011.0", ""])
async def test_events_about_others_things_or_about_none_end_the_stream(events: str) -> None:
    node, heard = FakeNode(), list[Identifier]()
    async with serving(node), place(node) as at:
        at.hearing.on_events = heard.append
        await until(at.live)
        node.say(pb.Change(events=events))
        await until(lambda: at.following.counters.lost == 1)
        assert heard == []


async def test_nobody_has_to_listen() -> None:
    node = FakeNode()
    async with serving(node), place(node) as at:
        await until(at.live)
        node.say(pb.Change(events=str(ITEM)))
        await until(lambda: at.watch.sequence == 8)
        assert at.live()
