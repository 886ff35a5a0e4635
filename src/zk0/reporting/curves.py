"""The figures over rounds: losses, updates, bytes and seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from zk0.records.run import Round, SiteRound
from zk0.reporting import format as fmt
from zk0.reporting.figures import BASE_COLOUR, GLOBAL_COLOUR, blank, by_name, safe

DOWN_COLOUR = "#7aa6c2"
# Distinct for most colour-blind readers, and on white and near-black alike.
SITE_COLOURS = ("#d1853c", "#3a9d78", "#8c6bb8", "#c4577a", "#5b8fc9", "#a09138", "#4aa3a8", "#b0673f")
SITE_DASHES = ("solid", "dot", "dash", "dashdot")
NAMED_SITES = 16


def held_out_loss(rounds: Sequence[Round], best_round: int | None) -> go.Figure:
    """Held-out loss by round, the sites and their mean, with the best round marked."""
    figure = _by_round(rounds, lambda site: site.held_out_loss, lambda one: one.held_out_loss, "held-out loss")
    best = next((one for one in rounds if one.round == best_round and one.held_out_loss is not None), None)
    if best:
        marker = {"symbol": "star", "size": 15, "color": GLOBAL_COLOUR, "line": {"width": 1, "color": "#fff"}}
        figure.add_scatter(x=[best.round], y=[best.held_out_loss], mode="markers", name="best round", marker=marker)
    return figure


def train_loss(rounds: Sequence[Round]) -> go.Figure:
    """Training loss by round, the sites and their mean."""
    return _by_round(_trained(rounds), lambda site: site.train_loss, lambda one: one.train_loss, "training loss")


def update_norm(rounds: Sequence[Round]) -> go.Figure:
    """Size of each site's update by round."""
    return _by_round(_trained(rounds), lambda site: site.update_norm, None, "L2 norm of update")


def learning_rate(rounds: Sequence[Round]) -> go.Figure:
    """Learning rate by round."""
    return _one_line(rounds, lambda one: one.learning_rate, "learning rate").update_layout(yaxis_exponentformat="power")


def epsilon(rounds: Sequence[Round]) -> go.Figure | None:
    """Privacy spent up to each round; None where nothing was counted."""
    spent = any(one.epsilon is not None for one in rounds)
    return _one_line(rounds, lambda one: one.epsilon, "epsilon") if spent else None


def _one_line(rounds: Sequence[Round], value: Callable[[Round], float | None], name: str) -> go.Figure:
    """A single series, of the rounds that have it."""
    points = [(one.round, found) for one in rounds if (found := value(one)) is not None]
    figure = blank(name)
    figure.add_scatter(
        x=[number for number, _ in points],
        y=[found for _, found in points],
        mode="lines+markers",
        name=name,
        line={"color": GLOBAL_COLOUR, "width": 2.5},
    )
    figure.update_layout(showlegend=False, yaxis_rangemode="tozero")
    return _round_axis(figure, len(points))


def bytes_by_round(rounds: Sequence[Round]) -> go.Figure:
    """Bytes up and down by round, stacked."""
    figure = blank("megabytes")
    shown = _trained(rounds)
    sizes = (("up", GLOBAL_COLOUR, [r.bytes_up for r in shown]), ("down", DOWN_COLOUR, [r.bytes_down for r in shown]))
    _stack_bytes(figure, [one.round for one in shown], sizes)
    return _round_axis(figure, len(shown))


def bytes_by_site(totals: dict[str, tuple[int, int]]) -> go.Figure:
    """Bytes up and down by site over the whole run, stacked."""
    figure = blank("megabytes")
    ups, downs = [up for up, _ in totals.values()], [down for _, down in totals.values()]
    _stack_bytes(figure, [safe(n) for n in totals], (("up", GLOBAL_COLOUR, ups), ("down", DOWN_COLOUR, downs)))
    return by_name(figure)


def seconds_by_round(rounds: Sequence[Round]) -> go.Figure:
    """Where each round's time went, stacked, with the round's own duration as a line."""
    figure = blank("seconds")
    parts: tuple[tuple[str, str, Callable[[Round], float]], ...] = (
        ("training, all sites", GLOBAL_COLOUR, lambda r: sum(s.train_s or 0 for s in r.sites.values())),
        ("evaluating, all sites", DOWN_COLOUR, lambda r: sum(s.evaluate_s or 0 for s in r.sites.values())),
        ("aggregating", SITE_COLOURS[0], lambda r: r.aggregate_s or 0),
        ("saving", SITE_COLOURS[2], lambda r: r.save_s or 0),
    )
    numbers = [one.round for one in rounds]
    for name, colour, seconds in parts:
        figure.add_bar(x=numbers, y=[seconds(one) for one in rounds], name=name, marker_color=colour)
    durations = [one.round_s for one in rounds]
    line = {"color": BASE_COLOUR, "width": 2, "dash": "dot"}
    figure.add_scatter(x=numbers, y=durations, mode="lines+markers", name="whole round", line=line)
    figure.update_layout(barmode="stack", bargap=0.35)
    return _round_axis(figure, len(rounds))


def _round_axis(figure: go.Figure, rounds: int) -> go.Figure:
    """Whole rounds below, a dozen of them at most: plotly's own choice puts ticks between rounds."""
    return figure.update_layout(xaxis_title_text="round", xaxis_tick0=0, xaxis_dtick=max(1, math.ceil(rounds / 12)))


def _by_round(
    rounds: Sequence[Round],
    of_site: Callable[[SiteRound], float | None],
    of_round: Callable[[Round], float | None] | None,
    title: str,
) -> go.Figure:
    """A thin line per site, and a thick one for their mean."""
    figure = blank(title)
    numbers = [one.round for one in rounds]
    names = list(dict.fromkeys(name for one in rounds for name in one.sites))
    for index, name in enumerate(names):
        dash = SITE_DASHES[index // len(SITE_COLOURS) % len(SITE_DASHES)]
        figure.add_scatter(
            x=numbers,
            y=[of_site(one.sites[name]) if name in one.sites else None for one in rounds],
            mode="lines+markers",
            name=safe(name),
            # A legend of hundreds would cover the figure; those sites are named when pointed at.
            showlegend=len(names) <= NAMED_SITES,
            line={"color": SITE_COLOURS[index % len(SITE_COLOURS)], "width": 1.5, "dash": dash},
            marker_size=5,
        )
    if of_round:
        line = {"color": GLOBAL_COLOUR, "width": 3.5}
        figure.add_scatter(x=numbers, y=[of_round(r) for r in rounds], mode="lines+markers", name="mean", line=line)
    return _round_axis(figure, len(rounds))


def _stack_bytes(
    figure: go.Figure,
    places: Sequence[int | str],
    parts: Sequence[tuple[str, str, Sequence[int | None]]],
) -> None:
    """Bars of megabytes whose hover text has the readable size."""
    for name, colour, sizes in parts:
        figure.add_bar(
            x=list(places),
            y=[None if size is None else size / 1e6 for size in sizes],
            name=name,
            marker_color=colour,
            customdata=[fmt.data_size(size) for size in sizes],
            hovertemplate="%{customdata}",
        )
    figure.update_layout(barmode="stack", bargap=0.35)


def _trained(rounds: Sequence[Round]) -> list[Round]:
    """Without round 0, which only evaluates the start."""
    return [one for one in rounds if one.round > 0]
