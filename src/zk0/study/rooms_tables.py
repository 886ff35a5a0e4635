"""What owners who differ gain, and how much a newcomer has to bring: aims, tables and curves of the study of rooms."""

from __future__ import annotations

from zk0.evaluation.paired import Difference, Estimate
from zk0.sources import Source
from zk0.study.arms import FEDERATED, newcomer
from zk0.study.results import StudyResult, Whose
from zk0.study.tables import LEVEL, MARGIN, Rows, difference_text, estimate_text, mark, p_text, points_text, told_gap

QUARTER = 4  # from the base it takes so many times a newcomer's episodes


def ways(result: StudyResult) -> dict[str, Whose]:
    """Ways of getting a model for every owner, by name: an arm, or of each owner the one trained alone."""
    found: dict[str, Whose] = {}
    alone = {one.arm.site or "": name for name, one in result.arms.items() if one.arm.kind == "alone"}
    for name, one in result.arms.items():
        if one.arm.kind == "alone":
            found.setdefault("alone", alone)
        elif one.arm.kind != "newcomer":
            found[name] = name
    return found


def owners(result: StudyResult) -> tuple[str, ...]:
    """The owners whose data the federation trained on."""
    return tuple(result.record.params["data"]["sites"])


def newcomers(result: StudyResult) -> dict[str, list[int]]:
    """Who joins late, and with how many own episodes, ascending."""
    found: dict[str, list[int]] = {}
    for one in result.arms.values():
        if one.arm.kind == "newcomer" and one.arm.site and one.arm.episodes:
            counts = found.setdefault(one.arm.site, [])
            counts += [one.arm.episodes] * (one.arm.episodes not in counts)
    return {site: sorted(counts) for site, counts in found.items()}


def task_is_known(result: StudyResult, newcomer: str) -> bool:
    """Whether some owner has the newcomer's task, in another room."""
    data = result.record.params["data"]
    return Source.parse(data["unseen"][newcomer]).name in {Source.parse(text).name for text in data["sites"].values()}


def arm_of(site: str, episodes: int, from_global: bool) -> str:
    """The arm of a newcomer with so many own episodes; with none it is the model from which the others start."""
    if not episodes:
        return FEDERATED if from_global else "base"
    return newcomer(site, episodes, from_global).name


def curve(result: StudyResult, site: str, from_global: bool) -> list[tuple[float, Estimate]]:
    """A newcomer's success by the number of own episodes, from none on, as far as it is known."""
    points = {own: result.rate(arm_of(site, own, from_global), (site,)) for own in (0, *newcomers(result)[site])}
    return [(own, rate) for own, rate in points.items() if rate]


def owners_table(result: StudyResult) -> tuple[list[str], Rows]:
    """What every way gives each owner in its own room, and all of them together."""
    names, every = owners(result), ways(result)
    rows = [
        [label, *(estimate_text(result.rate(whose, tasks), result.closed_loop) for whose in every.values())]
        for label, tasks in {**{name: (name,) for name in names}, "all": names}.items()
    ]
    return ["owner", *every], rows


def gaps_table(result: StudyResult) -> tuple[list[str], Rows]:
    """Federated less every other way, on all owners' tasks; less alone also owner by owner."""
    names, rows = owners(result), Rows()
    for way, whose in ways(result).items():
        groups = {"all": names} | ({name: (name,) for name in names} if way == "alone" else {})
        for label, tasks in groups.items():
            gap = result.advantage(FEDERATED, whose, tasks) if way != FEDERATED else None
            if gap is not None:
                rows.append([way, label, *_gap_cells(gap, result.closed_loop), p_text(gap.p_worse)])
    return ["federated less", "owners", "difference (95%)", "p better", "p worse"], rows


def newcomers_table(result: StudyResult) -> tuple[list[str], Rows]:
    """What a newcomer reaches with ever more own episodes, from the global model and from the base."""
    rows = Rows()
    for site, counts in newcomers(result).items():
        for own in (0, *counts):
            late, alone = arm_of(site, own, True), arm_of(site, own, False)
            gap = result.advantage(late, alone, (site,))
            told = [estimate_text(result.rate(arm, (site,)), result.closed_loop) for arm in (late, alone)]
            rows.append([_named(result, site), str(own), *told, *_gap_cells(gap, result.closed_loop)])
    return ["newcomer", "own episodes", "from the global model", "from the base", "difference (95%)", "p better"], rows


def _gap_cells(gap: Difference | None, closed_loop: bool) -> list[str]:
    return [difference_text(gap, closed_loop), p_text(gap.p_better if gap else None)]


def _named(result: StudyResult, site: str) -> str:
    return f"{site} ({'known' if task_is_known(result, site) else 'new'} task, new room)"


def rooms_verdicts(result: StudyResult) -> list[str]:
    """The study's aims, each with what was found and its interval; nothing where it cannot be known."""
    if FEDERATED not in result.arms or not result.closed_loop:
        return []
    told, names, margin = list[str](), owners(result), f"{MARGIN * 100:.0f} points"
    if (best := result.best_pooled(names)) and (gap := result.advantage(FEDERATED, best, names)):
        told.append(
            f"{mark(gap.lower_bound > -MARGIN)} Federated is at most {margin} below all data in one place ({best}, the "
            f"better budget on these scenes), by the one-sided 95% bound: {_bounded(gap)}."
        )
    if "alone" in (every := ways(result)) and (gap := result.advantage(FEDERATED, every["alone"], names)):
        told.append(
            f"{mark(gap.p_better < LEVEL)} Federated is better than each owner alone, on the own task in the own "
            f"room: {told_gap(gap)}."
        )
    for site, counts in newcomers(result).items():
        few, many = counts[0], counts[-1]
        gap = result.advantage(arm_of(site, few, True), arm_of(site, many, False), (site,))
        if gap and few * QUARTER <= many:
            told.append(
                f"{mark(gap.lower_bound > -MARGIN)} {_named(result, site)}: {few} own episodes from the global model "
                f"are at most {margin} below {many} from the base, by the one-sided 95% bound: {_bounded(gap)}."
            )
    return told


def _bounded(gap: Difference) -> str:
    return f"{told_gap(gap)}, at least {points_text(gap.lower_bound)}"
