"""The documented steps of a workflow: each is named once, beside what it does, for commands and flows alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from zk0.console import console
from zk0.errors import StageError
from zk0.words import nearest_hint

# What a step may ask outside of this machine's own files, so that it may go better in a minute: the Hub, data on a
# network, or a database or server that may be busy.
Asks = Literal["hub", "sources", "service"]


@dataclass(frozen=True)
class Outcome:
    """How a step ended.

    Attributes:
        changed: Whether it changed anything.
        told: What it found or did, a line each.
        warnings: What a person should look at, a line each.
        facts: For later steps.
    """

    changed: bool
    told: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundStep:
    """A step that every round repeats: whoever makes the rounds says when it is over.

    Attributes:
        name: As documents, commands and flows name it.
        about: What it does, in a sentence.
        event: What is said in the run's events when it is over.
    """

    name: str
    about: str
    event: str


@dataclass(frozen=True, eq=False)
class Step[**P, R]:
    """A step of a workflow, which is called as the function that it was made of.

    Attributes:
        name: As documents, commands and flows name it.
        do: What it does.
        about: The same in a sentence: the first line of the function's docstring.
        stage: The pipeline's stage that it runs, where its name is another.
        asks: What it asks outside of this machine's own files.
        rounds: The steps that every round repeats, where this one runs all rounds.
    """

    name: str
    do: Callable[P, R]
    about: str
    stage: str | None = None
    asks: Asks | None = None
    rounds: tuple[RoundStep, ...] = ()

    def __call__(self, *given: P.args, **named: P.kwargs) -> R:
        """Do the step, and return what its function returns."""
        return self.do(*given, **named)


def step[**P, R](
    name: str,
    *,
    stage: str | None = None,
    asks: Asks | None = None,
    rounds: tuple[RoundStep, ...] = (),
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a function a step of a workflow; see :class:`Step`."""
    return lambda do: Step(name, do, (do.__doc__ or "").partition("\n")[0], stage, asks, rounds)


def names_of(steps: Sequence[Step[..., Any]]) -> tuple[str, ...]:
    """All documented names in order, those of a round included."""
    return tuple(one.name for step in steps for one in (step.rounds or (step,)))


def step_named[R](steps: Sequence[Step[..., R]], name: str) -> Step[..., R]:
    """The step of that name.

    Raises:
        StageError: There is none, or it is one that a round repeats, and does not run by itself.
    """
    for one in steps:
        if one.name == name:
            return one
        if any(part.name == name for part in one.rounds):
            raise StageError(f"'{name}' is a part of every round, which --only '{one.name}' runs")
    raise StageError(f"there is no step '{name}'{nearest_hint(name, names_of(steps))}")


def run_steps(
    steps: Sequence[Step[..., Any]], run: Callable[[Step[..., Any]], Outcome | None], only: Collection[str] = ()
) -> None:
    """Run a workflow's steps in this process, and print of each its number, its name and what it came to.

    Args:
        steps: All of the workflow, in order.
        run: Runs one; what it returns is told, where it returns something.
        only: The names of those to run; all by default.
    """
    names, number = names_of(steps), 1
    for one in steps:
        parts = names_of([one])
        if not only or one.name in only:
            last = f" to {number + len(parts) - 1}" if len(parts) > 1 else ""
            console.print(f"{number}{last} of {len(names)}: {', '.join(parts)}", style="bold", markup=False)
            outcome = run(one)
            for line in outcome.told if outcome else ():
                console.print(line, markup=False)
            for line in outcome.warnings if outcome else ():
                console.print(f"note: {line}", style="yellow", markup=False)
        number += len(parts)
