"""The Ray engine: a Flower Grid whose sites are served side by side, by workers on one machine or many.

Replies are given out in the messages' order, whoever is fastest, so the federation's sums have one value for any
number of workers. A worker gets no further ahead than a few replies, which wait where they were made: the server's
memory holds one. A worker that is lost is replaced, and its sites are asked again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import ray
from flwr.app import ArrayRecord, Error, Message, RecordDict
from ray.exceptions import RayError

from zk0.console import console
from zk0.federation.inprocess import NodesGrid
from zk0.federation.protocol import GRID_CODE
from zk0.federation.scale.cluster import MOST_LOST, UP_S, Cluster, EngineError, cause_of
from zk0.federation.scale.worker import ALONE, Asked, Project, Told, Worker, pack, unpack
from zk0.machine.packages import versions
from zk0.records.journal import Journal

_AT_ONCE = 2  # messages that a worker has: one that it answers, and the next, so that it never waits for the server
_numbers = count()


@dataclass(eq=False)
class _Call:
    """Messages that were sent together. They are made as they are needed, so memory holds those near their turn.

    Attributes:
        messages: Those to come.
        tasks: Those whose replies were not given out, in order.
        queue: Those of them that nobody was asked.
        made: Of records that all sites are sent alike, by id, number and Ray's reference: they are laid down once.
        first: No record's number is lower.
    """

    messages: Iterator[Message]
    tasks: deque[_Task] = field(default_factory=deque)
    queue: deque[_Task] = field(default_factory=deque)
    made: dict[int, tuple[Any, int, Any]] = field(default_factory=dict)
    first: int = field(default_factory=lambda: next(_numbers))

    def fill(self, most: int) -> None:
        """Make messages until so many await their turn, or there are no more."""
        for message in islice(self.messages, max(0, most - len(self.tasks))):
            task = _Task(message, self)
            self.tasks.append(task)
            self.queue.append(task)

    def packed(self, record: Any, sent: set[int]) -> tuple[int, Any]:
        """A record's number and itself, as a worker is handed it; nothing but the number if it was sent it before."""
        if not isinstance(record, ArrayRecord):
            return ALONE, pack(record)
        if id(record) not in self.made:
            self.made[id(record)] = (record, next(_numbers), ray.put(pack(record)))
        _, number, content = self.made[id(record)]
        if number in sent:
            return number, None
        sent.add(number)
        return number, content


@dataclass(eq=False)
class _Task:
    """A message on its way.

    Attributes:
        failed: Why there will be no reply.
        coming, content: Ray's references to the two halves of the reply.
        told: The first half, once it is there.
    """

    message: Message
    call: _Call
    lost: int = 0
    failed: str | None = None
    coming: Any = None
    content: Any = None
    told: Told | None = None

    @property
    def node(self) -> int:
        return self.message.metadata.dst_node_id


@dataclass(eq=False)
class _Hand:
    """A worker, as the grid sees it: an actor in one of the cluster's places, what it was asked, in order, and sent."""

    slot: int
    actor: Any
    coming: Any
    asked: deque[_Task] = field(default_factory=deque)
    sent: set[int] = field(default_factory=set)
    up: bool = False
    machine: str = ""
    process: int = 0


class RayGrid(NodesGrid):
    """One node per partition, served by workers on a cluster.

    A site is served by the worker that served it before, which has its data at hand, unless that one has its hands full
    and another on the same machine has nothing to do.

    Args:
        cluster: Where.
        project: What the workers are told of the run.
        journal: Gets the sites' events.

    Raises:
        EngineError: A worker does not come up, or runs on other versions than this process.
    """

    def __init__(self, cluster: Cluster, project: Project, journal: Journal) -> None:
        super().__init__(project.partitions)
        self._cluster, self._project, self._journal = cluster, project, journal
        self._hands = [self._start(slot) for slot in range(cluster.workers)]
        self._homes: dict[int, int] = {}
        self._served: Counter[int] = Counter()  # sites by worker
        self._calls: list[_Call] = []  # the last first: whoever asks while a call is under way wants the answer first
        for hand in self._hands:
            self._came_up(hand)

    @property
    def processes(self) -> list[int]:
        """The workers', by place; 0 for one that is coming up."""
        return [hand.process for hand in self._hands]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Yield the replies in the messages' order.

        Args:
            messages: To one site each.
            timeout: Seconds without any worker's answer, after which the sites at work get an error for a reply.
        """
        call = _Call(iter(messages))
        self._calls.insert(0, call)
        try:
            self._deal()
            while call.tasks:
                while (reply := self._reply(call.tasks[0])) is None:
                    self._deal()
                    self._wait(timeout)
                call.tasks.popleft()
                self._deal()
                yield reply
                del reply  # or its update would stay in memory while the next one is waited for
        finally:
            self._calls.remove(call)

    def _reply(self, task: _Task) -> Message | None:
        """A task's reply; None as long as there is none."""
        if task.failed is not None:
            return Message(Error(GRID_CODE, task.failed), reply_to=task.message)
        if (told := task.told) is None:
            return None
        try:
            records = ray.get(task.content)
        except RayError as error:
            self._again(task, f"its reply was lost with its machine: {cause_of(error)}")
            return None
        for event in told.events:
            self._journal.note(event)
        for line in told.lines:
            console.print(f"  {line}", markup=False)
        task.coming = task.content = None
        if told.error is not None:
            return Message(Error(*told.error), reply_to=task.message)
        content = RecordDict({name: unpack(record) for name, record in zip(told.names, records, strict=True)})
        return Message(content, reply_to=task.message)

    def _deal(self) -> None:
        """Give every worker what it may have of the next messages, the one with the least first."""
        for call in self._calls:
            call.fill(_AT_ONCE * len(self._hands))
        while True:
            for hand in sorted((h for h in self._hands if h.up), key=lambda h: len(h.asked)):
                if len(hand.asked) < _AT_ONCE and (task := self._next_for(hand)) is not None:
                    self._ask(hand, task)
                    break
            else:
                return

    def _next_for(self, hand: _Hand) -> _Task | None:
        near = [task for call in self._calls for task in call.queue]
        for task in near:
            if self._home(task.node) is hand:
                return task
        if hand.asked:
            return None
        for task in near:
            home = self._home(task.node)
            if len(home.asked) == _AT_ONCE and home.machine == hand.machine:
                self._settle(task.node, hand)
                return task
        return None

    def _home(self, node: int) -> _Hand:
        """The worker that serves a site; for one that is new the worker with the fewest sites."""
        by_slot = {hand.slot: hand for hand in self._hands}
        if self._homes.get(node) not in by_slot:
            self._settle(node, min((h for h in self._hands if h.up), key=lambda h: self._served[h.slot]))
        return by_slot[self._homes[node]]

    def _settle(self, node: int, hand: _Hand) -> None:
        """Have a worker serve a site from now on."""
        self._served.subtract([self._homes[node]] if node in self._homes else [])
        self._homes[node] = hand.slot
        self._served[hand.slot] += 1

    def _ask(self, hand: _Hand, task: _Task) -> None:
        task.call.queue.remove(task)
        about, records = task.message.metadata, task.message.content
        numbers, packed = zip(*(task.call.packed(record, hand.sent) for record in records.values()), strict=True)
        since = min(call.first for call in self._calls)
        asked = Asked(about.message_type, task.node, about.group_id, dict(zip(records, numbers, strict=True)), since)
        task.coming, task.content = hand.actor.answer.options(num_returns=2).remote(asked, *packed)
        hand.asked.append(task)

    def _wait(self, timeout: float | None) -> None:
        """Wait until a worker has answered, came up or is lost."""
        busy = {hand.asked[0].coming: hand for hand in self._hands if hand.asked}
        coming = {hand.coming: hand for hand in self._hands if not hand.up}
        ready, _ = ray.wait([*busy, *coming], timeout=timeout if busy else UP_S, fetch_local=False)
        if not ready and not busy:
            raise EngineError(f"all workers are lost, and for {UP_S:g} s no machine had room for others")
        for hand in () if ready else busy.values():
            hand.asked[0].lost = MOST_LOST
            self._lose(hand, f"no reply within {timeout:g} s")
        if not ready:
            return
        if ready[0] in coming:
            self._replaced(coming[ready[0]])
            return
        hand = busy[ready[0]]
        try:
            told = ray.get(ready[0])
        except RayError as error:
            self._lose(hand, f"its worker was lost: {cause_of(error)}")
        else:
            hand.asked.popleft().told = told

    def _lose(self, hand: _Hand, reason: str) -> None:
        """Replace a worker, and have the sites that it was asked for asked again, elsewhere where there is another."""
        ray.kill(hand.actor)
        console.print(f"worker {hand.slot} on {hand.machine} is replaced: {reason}", markup=False, style="yellow")
        first, others = (hand.asked[0], list(hand.asked)[1:]) if hand.asked else (None, [])
        self._homes = {node: slot for node, slot in self._homes.items() if slot != hand.slot}
        self._served[hand.slot] = 0
        self._hands[self._hands.index(hand)] = self._start(hand.slot)
        for task in reversed(others):
            task.call.queue.appendleft(task)
        if first is not None:
            self._again(first, reason)

    def _again(self, task: _Task, reason: str) -> None:
        """Have a site asked again, unless it was often enough."""
        task.lost, task.told = task.lost + 1, None
        if task.lost < MOST_LOST:
            task.call.queue.appendleft(task)
        else:
            task.failed = reason

    def _start(self, slot: int) -> _Hand:
        actor = self._cluster.start(Worker, slot, self._project)
        return _Hand(slot, actor, actor.present.remote())

    def _replaced(self, hand: _Hand) -> None:
        """Take in a worker that was started for a lost one; without it the others go on."""
        try:
            self._came_up(hand)
        except EngineError as error:
            self._hands.remove(hand)
            if not self._hands:
                raise
            console.print(f"{error}; {len(self._hands)} workers go on", markup=False, style="yellow")

    def _came_up(self, hand: _Hand) -> None:
        """Wait for a worker to come up."""
        try:
            hand.machine, hand.process, theirs = ray.get(hand.coming, timeout=UP_S)
        except RayError as error:
            raise EngineError(f"a worker did not come up: {cause_of(error)}") from error
        mine = versions()
        names = sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
        if names:
            wrong = ", ".join(f"{name} {theirs.get(name)} (here {mine.get(name)})" for name in names)
            raise EngineError(
                f"{hand.machine} has {wrong}: workers need the versions that this process has, or "
                "their part of the model would be another"
            )
        hand.up = True
