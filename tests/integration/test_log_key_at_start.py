"""A node that is given a new log key goes on with its log under that key at once, by a commit like any other."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace.entry import EntryKind
from idtrace.note import Note, NoteKey, open_note
from idtrace.serving.keyfile import write_private_key
from registry.adoption import Adoption
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import signer
from tests.integration.test_logged_node import LOG, LOG_KEY, ZONE, Read, tree
from tests.nodes import Node, private_key

NEW_KEY = NoteKey.of(LOG, signer("another log key").public_key.raw)


async def restart_with_new_key(node: Node, folder: Path) -> None:
    await node.end()
    write_private_key(folder / "new-log.key", private_key("another log key"), None)
    assert node.config.log is not None
    node.config = replace(node.config, log=replace(node.config.log, key=folder / "new-log.key"))
    await node.start()


async def test_the_stored_head_is_by_the_new_key_before_anything_is_registered(tmp_path: Path) -> None:
    async with tree(tmp_path) as nodes:
        node = nodes.of_zone[ZONE]
        await nodes.register(f"{ZONE}/A")
        before = await Read.of(node)
        assert open_note(Note.parse(before.note), [LOG_KEY])
        await restart_with_new_key(node, tmp_path)
        after = await Read.of(node)
        assert open_note(Note.parse(after.note), [NEW_KEY])
        assert after.entries[: len(before.entries)] == before.entries, "what was logged stays what it was"
        assert after.kinds == [EntryKind.KEYS, EntryKind.RECORD, EntryKind.KEYS]
        assert after.replay().findings == []
        store = SqliteStorage(node.config.data / "registry.sqlite3")
        assert await store.log_note(len(before.entries)) == before.note, "a size has one checkpoint for ever"
        await store.close()
        await node.end()
        await node.start()
        assert await Read.of(node) == after, "the next start has nothing to make up for"
        await nodes.register(f"{ZONE}/B")
        assert (await Read.of(node)).replay().findings == []


async def test_a_node_that_died_before_the_commit_makes_up_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tree(tmp_path) as nodes:
        node = nodes.of_zone[ZONE]
        await nodes.register(f"{ZONE}/A")
        before = await Read.of(node)

        async def dies(*_: object, **__: object) -> None:
            raise OSError("the disk is gone")

        with monkeypatch.context() as patched:
            patched.setattr(Adoption, "_keep", dies)
            with pytest.raises(OSError, match="gone"):
                await restart_with_new_key(node, tmp_path)
        node.task = None
        assert await Read.of(node) == before
        await node.start()
        assert open_note(Note.parse((await Read.of(node)).note), [NEW_KEY])


async def test_a_clock_that_is_behind_does_not_keep_the_node_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tree(tmp_path) as nodes:
        node = nodes.of_zone[ZONE]
        await nodes.register(f"{ZONE}/A")
        before = await Read.of(node)
        with monkeypatch.context() as patched:
            patched.setattr("registry.server.wall_clock", lambda: int(time.time()) - 3_600)
            await restart_with_new_key(node, tmp_path)
            assert await Read.of(node) == before
            await node.end()
        await node.start()
        assert open_note(Note.parse((await Read.of(node)).note), [NEW_KEY])
