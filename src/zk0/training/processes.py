"""Processes that share each step of a site's training, each on a GPU of its own, by accelerate, as LeRobot trains.

Data-parallel training (Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB
2020): every process computes gradients for its share of a step's frames, all take their mean, and each takes the same
step. The first process is the site's own. It alone has the data, deals the frames out, keeps what comes of it and
answers. The others hold a copy of the policy, warm for the next round, and get all else through a pipe; so nothing but
this process touches the site's files, and whatever policy and frames it trains on, they can share.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import pickle
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from zk0.errors import StageError
from zk0.runtime_env import begin_child

if TYPE_CHECKING:
    from accelerate import Accelerator

_READY = "ready"
_TELL_S = 2.0  # for a process that ended to have said why


@dataclass
class Part:
    """A process's part in the steps; it is to be the innermost block around them.

    Attributes:
        left: Told when the block is left, and by which error.
        accelerator: None where the process is alone, and all of every step is its.
    """

    left: Callable[[BaseException | None], None]
    accelerator: Accelerator | None = None

    def sharing(self, module: nn.Module) -> nn.Module:
        """The module, trained from the first process's parameters, with the mean of all processes' gradients."""
        return self.accelerator.prepare(module) if self.accelerator else module

    def mean(self, value: Tensor) -> Tensor:
        """The mean of all processes' values."""
        return self.accelerator.reduce(value, "mean") if self.accelerator else value

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.accelerator is not None:
            self.accelerator.free_memory()  # it would hold on to what it prepared
        self.left(error)


class Team:
    """This process and others, which it starts.

    Args:
        policy: What trains, on its device; the others get a copy.
        size: How many they are, with this one.

    Attributes:
        part: This process's.
        size: As given.
    """

    def __init__(self, policy: nn.Module, size: int) -> None:
        self.part, self.size, self._idle, self._policy = Part(self._left), size, True, weakref.ref(policy)
        self._others: list[tuple[Any, Connection]] = []
        if size == 1:
            return
        device = next(policy.parameters()).device
        gpus = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, size)
        if size > gpus:
            raise StageError(
                f"policy.processes is {size}, and each needs a GPU of its own, but this process has {gpus}; set it to "
                f"{gpus} at most, or give it more GPUs"
            )
        self._folder = tempfile.mkdtemp(prefix="zk0-processes-")
        try:
            self._start(policy, (size, f"{Path(self._folder).as_uri()}/meeting", device.type))
        except BaseException:
            self.close()
            raise

    def _start(self, policy: nn.Module, place: tuple[int, str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # a forked child could not use CUDA
        for rank in range(1, place[0]):
            mine, theirs = context.Pipe()
            other = context.Process(target=_help, args=(theirs, torch.get_num_threads(), rank, *place), daemon=True)
            other.start()
            theirs.close()
            self._others.append((other, mine))
        torch.save(policy, buffer := io.BytesIO())
        with suppress(OSError):  # of one that has ended, which is asked for its reason next
            for _, connection in self._others:
                connection.send_bytes(buffer.getbuffer())
        for other, connection in self._others:
            if (said := _last_words(other, connection)) != _READY:
                raise StageError(f"a process to share the site's training did not start: {said}")
        self.part.accelerator = _accelerator(0, *place)

    def serves(self, policy: nn.Module, size: int) -> bool:
        """Whether it is what such a training needs, is all there, and waits for work."""
        there = self._idle and all(other.is_alive() for other, _ in self._others)
        return there and self._policy() is policy and self.size == size

    def begin(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have each of the others call ``work(policy, part, receive, *arguments)``, where ``receive`` takes shares."""
        self._idle = False
        for _, connection in self._others:
            connection.send_bytes(pickle.dumps((work, arguments)))

    def deal[T](self, shares: Sequence[T]) -> T:
        """Give each of the others its share of a step; the first is this process's."""
        for (_, connection), share in zip(self._others, shares[1:], strict=True):
            connection.send_bytes(pickle.dumps(share))
        return shares[0]

    def _left(self, error: BaseException | None) -> None:
        if error is None:
            self._idle = True
            return
        ended = [other for other in self._others if isinstance(error, Exception) and other[1].poll(_TELL_S)]
        reasons = "; ".join(_last_words(*other) for other in ended)
        self.close()
        if reasons:
            raise StageError(f"a process that shared the site's training ended: {reasons}") from error

    def close(self) -> None:
        """End the others, whatever they are at: all that they know is here, too."""
        self._idle = False
        for other, connection in self._others:
            other.kill()
            other.join()
            connection.close()
        if self.part.accelerator is not None:
            from accelerate.state import AcceleratorState  # noqa: PLC0415 - see _accelerator

            distributed.distributed_c10d._abort_process_group()  # the orderly way would wait for the others
            AcceleratorState._reset_state(reset_partial_state=True)
        if self._others:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._others, self.part.accelerator = [], None


_team: Team | None = None


def team_for(policy: nn.Module, size: int) -> Team:
    """The processes that share a policy's training, this one and ``size - 1`` others, which stay for the next time.

    Raises:
        StageError: There are fewer GPUs than processes, accelerate is missing, or a process does not start.
    """
    global _team
    if _team is None or not _team.serves(policy, size):
        dismiss()
        _team = Team(policy, size)
    return _team


def dismiss() -> None:
    """End the other processes, if there are any."""
    global _team
    if _team is not None:
        _team.close()
    _team = None


atexit.register(dismiss)


def _last_words(other: Any, connection: Connection) -> str:
    try:
        return str(connection.recv())
    except (EOFError, OSError):
        other.join(_TELL_S)
        return f"exit code {other.exitcode}"


def _help(connection: Connection, threads: int, rank: int, size: int, meeting: str, kind: str) -> None:
    """Another process's whole life."""
    begin_child()

    def left(error: BaseException | None) -> None:
        if error is None:
            return
        with suppress(OSError):
            connection.send(f"{type(error).__name__}: {error}")
        os._exit(1)  # at once: a thread of its own may wait for what never comes

    def receive(_step: int = 0) -> Any:
        return pickle.loads(connection.recv_bytes())

    part = Part(left)
    with part:
        torch.set_num_threads(threads)
        device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
        policy = torch.load(io.BytesIO(connection.recv_bytes()), map_location=device, weights_only=False)
        connection.send(_READY)
        part.accelerator = _accelerator(rank, size, meeting, kind)
        while True:
            work, arguments = receive()
            work(policy, part, receive, *arguments)


def _accelerator(rank: int, size: int, meeting: str, kind: str) -> Accelerator:
    """Meet the others, by a file and by this machine's own network only."""
    try:
        from accelerate import Accelerator, utils  # noqa: PLC0415 - who trains in one process does without
    except ImportError as missing:
        raise StageError(
            "policy.processes above 1 needs accelerate, which is not installed: install zk0 anew, or set it to 1"
        ) from missing
    cuda, loopback = kind == "cuda", "lo0" if sys.platform == "darwin" else "lo"
    settings: dict[str, Any] = {"rank": rank, "local_rank": rank, "world_size": size, "local_world_size": size}
    settings |= {"master_port": 0, "omp_num_threads": torch.get_num_threads()}  # or it would set threads by the cores
    settings |= {"gloo_socket_ifname": loopback, "nccl_socket_ifname": loopback}
    if cuda and not utils.check_cuda_p2p_ib_support():
        settings |= {"nccl_p2p_disable": 1, "nccl_ib_disable": 1}
    with utils.patch_environment(**settings):
        distributed.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=meeting,
            rank=rank,
            world_size=size,
            device_id=torch.device(kind, rank) if cuda else None,
        )
        parallel = utils.DistributedDataParallelKwargs(broadcast_buffers=False)
        return Accelerator(cpu=not cuda, mixed_precision="no", kwargs_handlers=[parallel])
