"""Workflow tests run on the shared stack's Temporal server (real updates, search attributes); each has a world of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.workflow.skipping import skipping_world
from tests.workflow.world import World


@pytest.fixture
async def world(temporal_client: Client, tmp_path: Path) -> World:
    made = World(temporal_client, tmp_path)
    await made.fill()
    return made


@pytest.fixture
async def skipping(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose clock jumps to the next timer whenever somebody waits for a result."""
    async with skipping_world(tmp_path) as made:
        yield made
