"""Recordings and frozen features stay on their site: every message of a whole federation is looked through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federated_sites import LIMIT, copy_project
from flwr.app import ConfigRecord, Message
from flwr.common.serde import message_to_proto
from network_services import Service
from site_trainers import node

from zk0.data.frames import Frames
from zk0.digests import digest_folder
from zk0.federation import protocol
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid, LocalGrid
from zk0.federation.run import run_federation
from zk0.federation.site import open_site
from zk0.federation.start import locked_base
from zk0.network.client.app import app as site_app
from zk0.params import Params

pytestmark = pytest.mark.services

# What of a reply is neither tensors that train nor one number: manifest, names, digests, protobuf's own.
MOST_BESIDES = 8_192
MOST_NUMBERS = 100  # told as text, in all: moments' and manifests', and errors by joint and episode


class WatchedGrid(LocalGrid):
    """Two sites served by their trainers, and whatever they answer as it goes to the network."""

    def __init__(self, home: Path) -> None:
        super().__init__(2, self._answered)
        self._home, self.sent = home, list[tuple[Message, bytes]]()

    def _answered(self, message: Message) -> Message:
        message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
        reply = site_app(message, node(self._home, message.metadata.dst_node_id - 1))
        self.sent.append((reply, message_to_proto(reply).SerializeToString()))
        return reply


@pytest.fixture(scope="module")
def quick(small_params: Params) -> Params:
    training = small_params.training.model_copy(update={"local_steps": 1, "batch": 2})
    return small_params.model_copy(update={"training": training})


@pytest.fixture(scope="module")
def watched(
    trainers: list[Service], sites_home: Path, prepared: Path, quick: Params, tmp_path_factory: pytest.TempPathFactory
) -> tuple[WatchedGrid, dict[str, Any], Path]:
    """A federation of two rounds through the trainers."""
    root = copy_project(prepared, tmp_path_factory.mktemp("watched"))
    grid = WatchedGrid(sites_home)
    return grid, run_federation(grid, root, quick, locked_base(sites_home)), root


def every_frame(home: Path) -> Iterator[Frames]:
    for partition in (0, 1):
        site = open_site(home, partition, LIMIT)
        yield from (site.train_frames, site.held_out_frames)


def traces(home: Path) -> dict[str, list[bytes]]:
    """Bytes that only a recording, or what was computed of its frames, has: in each form that is computed with."""
    found: dict[str, list[bytes]] = {"states": [], "actions": [], "pixels": [], "features": []}
    for frames in every_frame(home):
        for name, rows in (("states", frames.states), ("actions", frames.actions)):
            for kind in (np.float32, np.float64):
                found[name] += [row.tobytes() for row in rows.astype(kind)]
        for camera in frames.images.cameras:
            pictures = frames.images.read(camera, np.arange(len(frames)))
            lines = pictures[:, 1, pictures.shape[2] // 2].numpy()  # a line through the middle of each
            found["pixels"] += [line.tobytes() for line in lines]
            found["pixels"] += [np.rint(line * 255).astype(np.uint8).tobytes() for line in lines]
    for file in (home / ".cache" / "features").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        found["features"] += [content[at : at + 64] for at in range(len(content) // 2, len(content) - 64, 9_973)]
    return {name: [part for part in parts if len(set(part)) > 4] for name, parts in found.items()}


def numbers_in(value: Any) -> int:
    """How many numbers a JSON value holds."""
    if isinstance(value, dict):
        return sum(map(numbers_in, value.values()))
    if isinstance(value, list):
        return sum(map(numbers_in, value))
    return int(isinstance(value, int | float))


def test_no_message_holds_anything_recorded(
    watched: tuple[WatchedGrid, dict[str, Any], Path], sites_home: Path
) -> None:
    grid, _, _ = watched
    kinds = [reply.metadata.message_type for reply, _ in grid.sent]
    assert set(kinds) == {protocol.SUMMARY, protocol.STATISTICS, protocol.TRAIN, protocol.EVALUATE}
    found = traces(sites_home)
    assert all(len(parts) > 20 for parts in found.values()), {name: len(parts) for name, parts in found.items()}
    for (_, sent), kind in zip(grid.sent, kinds, strict=True):
        held = [name for name, parts in found.items() if any(part in sent for part in parts)]
        assert not held, f"a reply to {kind} holds {held}"
    for name, parts in found.items():  # and they would have been found
        assert parts[0] in grid.sent[-1][1] + parts[0], name


def test_messages_hold_what_trains_and_little_else(watched: tuple[WatchedGrid, dict[str, Any], Path]) -> None:
    grid, run, _ = watched
    trainable = run.policy.trainable_bytes
    for reply, sent in grid.sent:
        expected = trainable if reply.metadata.message_type == protocol.TRAIN else 0
        assert len(sent) <= expected + MOST_BESIDES, reply.metadata.message_type
        header = reply.content["header"]
        assert isinstance(header, ConfigRecord)
        assert numbers_in(json.loads(str(header["json"]))) <= MOST_NUMBERS


def test_the_model_is_that_of_the_in_process_engine(
    watched: tuple[WatchedGrid, dict[str, Any], Path], sites_home: Path, prepared: Path, quick: Params, tmp_path: Path
) -> None:
    _, run, root = watched
    other = copy_project(prepared, tmp_path / "inprocess")
    alone = run_federation(InProcessGrid(client_app, other, 2, LIMIT), other, quick, locked_base(sites_home))
    assert run.run == alone.run
    for name in ("best", "last"):
        assert digest_folder(root / "checkpoints" / name) == digest_folder(other / "checkpoints" / name)
