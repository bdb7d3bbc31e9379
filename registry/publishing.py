"""What a node does with its log for others: serves it as files, and has its checkpoints witnessed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from idtrace.errors import InputError, Reason
from idtrace.logpolicy import LogPolicy
from registry.config import LogConfig
from registry.log_http import LogPages, serve_log
from registry.log_reading import LogReading, LogStore
from registry.witnesses import WitnessedStore, Witnesses


class PublishedStore(LogStore, WitnessedStore, Protocol):
    """A store as far as its log goes."""


class Publishing:
    """The log's HTTP port and its witnesses, where the configuration has them. Belongs to one event loop."""

    def __init__(self, config: LogConfig, storage: PublishedStore, data: Path, clock: Callable[[], int]) -> None:
        """Read the policy.

        Raises:
            InputError: the policy's file cannot be used, or a witness in it has no address.
        """
        reading = LogReading(storage)
        self._listen = config.listen
        self.witnesses: Witnesses | None = None
        if config.policy is not None:
            try:
                policy = LogPolicy.parse(config.policy.read_bytes(), field=str(config.policy))
            except OSError as error:
                rule = f"the policy cannot be read: {error.strerror}"
                raise InputError(Reason.FIELD_MALFORMED, rule, field="log.policy") from None
            self.witnesses = Witnesses(policy, reading, storage, data / "evidence", clock)
        self._pages = LogPages(reading, storage, has_witnesses=self.witnesses is not None)

    def grow(self) -> None:
        """The log may have grown: call it after each commit."""
        if self.witnesses is not None:
            self.witnesses.grow()

    async def run(self, stop: asyncio.Event, on_ready: Callable[[str], None] | None = None) -> None:
        """Serve and ask until ``stop`` is set.

        Raises:
            InputError: the address cannot be listened on.
            VerificationError, ExceptionGroup: what :meth:`Witnesses.run` raises.
        """
        asking = asyncio.create_task(self.witnesses.run(), name="witnesses") if self.witnesses else None
        if asking is not None:
            asking.add_done_callback(lambda _: stop.set())
        try:
            if self._listen:
                await serve_log(self._pages, self._listen, stop=stop, on_ready=on_ready)
            else:
                await stop.wait()
        finally:
            if asking is not None:
                ended = asking.done()
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking if not ended else asking.result()
