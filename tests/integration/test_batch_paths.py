"""Paths of neighbours: what they have in common is looked up once, and each is the one that the tree has."""

from __future__ import annotations

import random

import pytest

from idtrace import merkle
from idtrace.errors import InputError, Reason
from registry.log_reading import LogReading
from tests.served_log import MemoryLog


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 513, 1_800])
async def test_every_path_is_the_trees_own_whichever_was_asked_for_before(size: int) -> None:
    log = MemoryLog(size)
    tree = merkle.BatchTree([merkle.hash_leaf(entry) for entry in log.entries])
    ways = [range(size), range(size - 1, -1, -1), random.Random(size).sample(range(size), size)]
    reading = LogReading(log)
    for way in ways:
        for index in way:
            assert await reading.inclusion(index, size) == tree.path(index)


async def test_paths_in_trees_of_several_sizes_are_not_mixed_up() -> None:
    log = MemoryLog(1_300)
    reading = LogReading(log)
    leaves = [merkle.hash_leaf(entry) for entry in log.entries]
    for index, size in [(3, 1_300), (4, 700), (5, 1_300), (5, 256), (6, 255), (7, 700), (300, 700), (8, 700), (9, 257)]:
        path = await reading.inclusion(index, size)
        merkle.check_inclusion(leaves[index], index, size, path, merkle.root_of(leaves[:size]))


async def test_an_entry_that_there_is_not_has_no_path_either_beside_one_that_there_is() -> None:
    log = MemoryLog(600)
    reading = LogReading(log)
    await reading.inclusion(255, 600)
    for index, size in [(-1, 600), (600, 600), (255, 255)]:
        with pytest.raises(InputError) as caught:
            await reading.inclusion(index, size)
        assert caught.value.reason is Reason.PROOF_MALFORMED
