"""A week of nightly runs as data: who has recorded how much by which night, and what befalls the federation.

Nothing heavy is imported here. Every other task has two owners. Nobody else has those of the one that leaves and of the
one that joins: what a model forgets, it forgets of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zk0.data.manifest import Manifest
from zk0.errors import StageError
from zk0.params import Params, with_changes
from zk0.sources import Source
from zk0.study.arms import POISONED_PARTITION

if TYPE_CHECKING:
    from zk0.federation.attacks import AttackKind

Event = Literal["begin", "join", "nothing", "lie", "leave", "spoil", "mend"]
ATTACK: AttackKind = "sign-flip"
EPISODES = 48  # that an owner records in the week, at most: with fewer there is little to gain after night 1
SCENES = 100  # of each task, at most: of the gate, and of those that judge it
KRUM_MARGIN = 2.0  # a lone owner differs by less, and stays; the liar is some hundred times as far off

# What befalls the federation night after night, and the share of their episodes that owners have recorded by then.
_NIGHTS: tuple[tuple[Event, float, str], ...] = (
    ("begin", 1 / 8, "the first night, few episodes"),
    ("join", 1 / 4, "{joiner} joins, with a task that nobody had"),
    ("nothing", 1 / 4, "nothing is new"),
    ("lie", 1 / 2, "{liar} lies ({attack})"),
    ("leave", 5 / 8, "{leaver} has left"),
    ("spoil", 3 / 4, "{spoiled}'s new recordings are spoiled"),
    ("mend", 1, "{spoiled}'s recordings are mended"),
)


@dataclass(frozen=True)
class Night:
    """One night.

    Attributes:
        number: From 1.
        event: What befalls the federation.
        about: The same for people.
        share: Of their episodes that owners have recorded by then.
        sites: Who takes part, in partition order.
    """

    number: int
    event: Event
    about: str
    share: float
    sites: tuple[str, ...]


@dataclass(frozen=True)
class Week:
    """Seven nights.

    Attributes:
        params: With all owners as sites, as the world is recorded.
        nights: In order.
        owners: Site to source.
        joiner, leaver, liar, spoiled: Who does what, or has it done to them.
    """

    params: Params
    nights: tuple[Night, ...]
    owners: Mapping[str, str]
    joiner: str
    leaver: str
    liar: str
    spoiled: str

    @property
    def tasks(self) -> tuple[str, ...]:
        """The owners' tasks, each once."""
        return tuple(dict.fromkeys(self.owners.values()))

    def last_with(self, source: str) -> int:
        """The night by which what the model forgot of a task is measured: the last, or first, with its only owner.

        Of a task whose owners stay it is the first night, of the leaver's the last that trained on it.
        """
        present = [n.number for n in self.nights if any(self.owners[site] == source for site in n.sites)]
        return present[0] if present[-1] == len(self.nights) else present[-1]

    def params_of(self, night: Night, world: Mapping[str, Manifest], spoiled: str) -> Params:
        """The project's params of a night.

        Args:
            night: Which.
            world: Owner to the manifest of all episodes of the week.
            spoiled: Source of the spoiled recordings.
        """
        sites = {name: self.owners[name] for name in night.sites}
        leave_out = {name: self._left_out(night, world[name]) for name in sites}
        coming = self.joiner if self.joiner not in sites else None  # who has left has taken the recordings along
        if night.event == "spoil":
            sites[self.spoiled] = spoiled
            del leave_out[self.spoiled]
        changes = {
            "data.sites": sites,
            "data.unseen": {**({coming: self.owners[coming]} if coming else {}), **self.params.data.unseen},
            "data.leave_out": {name: episodes for name, episodes in leave_out.items() if episodes},
        }
        return with_changes(self.params, changes)

    def _left_out(self, night: Night, manifest: Manifest) -> tuple[int, ...]:
        """What a site has not recorded yet."""
        kept = {*_first(manifest.train_episodes, night.share), *_first(manifest.held_out_episodes, night.share)}
        return tuple(sorted({*manifest.train_episodes, *manifest.held_out_episodes} - kept))

    def _used(self, night: Night, name: str, manifest: Manifest) -> tuple[int, ...]:
        """What a site has trained on, if it was there, that night or before."""
        shares = [before.share for before in self.nights[: night.number] if name in before.sites]
        return _first(manifest.train_episodes, max(shares)) if shares else ()

    def trained_on(self, night: Night, world: Mapping[str, Manifest]) -> list[tuple[Manifest, tuple[int, ...]]]:
        """All that the champion may have seen by the end of a night: owners' manifests, and which episodes."""
        return [(manifest, self._used(night, name, manifest)) for name, manifest in world.items()]


def _first(episodes: tuple[int, ...], share: float) -> tuple[int, ...]:
    return episodes[: max(1, round(len(episodes) * share))]


def week_of(params: Params, seed: int) -> Week:
    """The week that a project's params make.

    Args:
        params: The project's.
        seed: Decides everything random: recordings, splits, batches, noise.

    Raises:
        StageError: It takes simulated sites and an unseen task.
    """
    data = params.data
    kinds = {Source.parse(text).kind for text in (*data.sites.values(), *data.unseen.values())}
    if kinds != {"sim"} or data.partition.scheme != "none" or not data.unseen:
        raise StageError(
            "the study of nights records every task anew, so data.sites and data.unseen must be sim: sources, at least "
            f"one each, and data.partition.scheme none; found {', '.join(sorted(kinds))}, {len(data.unseen)} unseen "
            f"and {data.partition.scheme}"
        )
    *staying, leaver = data.sites
    joiner = next(iter(data.unseen))
    owners: dict[str, str] = {}
    for number, name in enumerate(staying):
        owners |= {f"{name}{part}": data.sites[name] for part in (("-a", "-b") if number % 2 == 0 else ("",))}
    owners |= {leaver: data.sites[leaver], joiner: data.unseen[joiner]}
    names = tuple(owners)
    who = {"joiner": joiner, "leaver": leaver, "liar": names[POISONED_PARTITION], "spoiled": names[0]}
    nights, present = [], {name for name in owners if name != joiner}
    for number, (event, share, about) in enumerate(_NIGHTS, 1):
        present |= {joiner} if event == "join" else set()
        present -= {leaver} if event == "leave" else set()
        sites = tuple(name for name in names if name in present)
        nights.append(Night(number, event, about.format(**who, attack=ATTACK), share, sites))
    federation, own = params.federation, params.study
    changes = {
        "seed": seed,
        "data.sites": owners,
        "data.unseen": {name: source for name, source in data.unseen.items() if name != joiner},
        "data.episodes": min(data.episodes, EPISODES),
        "data.unfit": "leave-out",
        "training.decay_steps": 0,
        "federation.strategy": own.robust_strategy,  # one for all nights: nobody knows beforehand when a site lies
        "federation.krum_margin": KRUM_MARGIN,
        "federation.proximal_mu": 0.0,
        "federation.proximal_schedule": "constant",
        "federation.server_learning_rate": None,
        "federation.min_replies": min(federation.min_replies, 0.7),
        "privacy.mode": "off",
        "evaluation.rollouts": min(params.evaluation.rollouts, SCENES),
        "evaluation.videos": 0,
        "study.variants": {},
        "promotion.automatic": True,
    }
    return Week(with_changes(params, changes), tuple(nights), owners, **who)
