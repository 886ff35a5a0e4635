"""Commands about a person's own data: look at it before anything trains on it, convert an older format."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Column

from zk0.console import console, folded_table
from zk0.data.dataset import DatasetFolder
from zk0.data.quality.judge import Judgement, Watch, judge, numbers_of
from zk0.data.survey import facts_of, lines_of, survey
from zk0.errors import DataError
from zk0.hub import hub_commit
from zk0.params import DataParams
from zk0.pipeline.prepare import find_dataset
from zk0.reporting.recordings import write_recording_page
from zk0.sources import Source
from zk0.words import stretches

UNNAMED = "mine"
WIDTH, MOST_LINES, MOST_WIDE = 80, 18, 20  # of the remarks in a terminal, and of the episodes before them


def check(root: Path, params: DataParams | None, text: str | None) -> None:
    """Say what sources are, what they would be taken for, and what params must say about them.

    Args:
        root: Project folder.
        params: The project's; None where it has none yet.
        text: One source, as in params or a folder's path; it need not be in params, and is then called ``mine``. None
            looks at all in params that are not simulated.

    Raises:
        DataError: A source is not fit to train on as params stand; what it says of itself was shown all the same.
    """
    wanted = {} if params is None else {**params.sites, **params.unseen}
    if text is not None:
        source = str(Source.of_owner(text))
        named = {name: known for name, known in wanted.items() if str(Source.parse(known)) == source}
        wanted = named or {UNNAMED: source}
    problems = []
    for name, one in wanted.items():
        if one.startswith("sim:"):
            console.print(f"{name} is {one}, which `zk0 prepare` records", markup=False)
            continue
        try:
            _show(root, name, one, params)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))


def _show(root: Path, name: str, text: str, params: DataParams | None) -> None:
    revision, dataset = open_source(root, Source.of_owner(text))
    if params is None or name == UNNAMED:
        params = DataParams(sites={name: text}, fps=int(dataset.fps))
    watch = Watch(dataset)
    try:
        found = survey(name, text, revision, dataset, params, root, watch.see)
    except DataError:
        _print(name, facts_of(dataset))
        raise
    _print(name, lines_of(found))
    numbers, pictures = numbers_of(dataset, found.joints), watch.sketches.cameras
    judgement = judge(numbers, pictures)
    page = write_recording_page(root, name, text, numbers, pictures, judgement, found.left_out)
    _print_remarks(judgement, len(numbers.states), page)


def _print_remarks(judgement: Judgement, episodes: int, page: Path) -> None:
    """The gravest in a few lines; the page has them all."""
    left = 0
    if judgement.remarks:
        lines = _remark_lines(judgement)
        widest = min(MOST_WIDE, max(len(who) for who, _ in lines))
        first = Column(style="bold", no_wrap=True, overflow="ellipsis", min_width=widest, max_width=widest)
        head = (first, Column(overflow="ellipsis", no_wrap=True))
        rows = [(who, escape(said)) for who, said in lines[:MOST_LINES]]
        about = {"title": "remarks", "title_justify": "left", "show_header": False, "box": None}
        console.print(folded_table(head, rows, **about, width=WIDTH))
        left = max(0, len(lines) - MOST_LINES)
    count = len(judgement.episodes)
    said = f"remarks on {count} of {episodes} episodes" if judgement.remarks else f"no remark on {episodes} episodes"
    said += f", {left} lines not shown here" if left else ""
    console.print(f"{said}; look at them all: {page}", markup=False)


def _remark_lines(judgement: Judgement) -> list[tuple[str, str]]:
    """Which episodes and what of them, a line each: of the whole recording, grave, others; what is alike together."""
    together: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
    for episode in judgement.episodes:
        texts = tuple(remark.text for remark in judgement.on(episode))
        together.setdefault((episode not in judgement.grave, texts), []).append(episode)
    whole = [("all", remark.text) for remark in judgement.whole]
    return whole + [(stretches(who), "; ".join(texts)) for (_, texts), who in sorted(together.items(), key=_gravest)]


def _gravest(line: tuple[tuple[bool, tuple[str, ...]], list[int]]) -> tuple[bool, int]:
    return line[0][0], line[1][0]


def _print(name: str, lines: list[tuple[str, str]]) -> None:
    rows = [(f"[bold]{escape(about)}", escape(said)) for about, said in lines]
    console.print(folded_table(("", ""), rows, title=name, title_justify="left", show_header=False, box=None))


def convert(root: Path, text: str, target: Path) -> None:
    """Convert a v2.1 dataset into a new folder.

    Raises:
        DataError: See :func:`zk0.data.convert.convert_dataset`.
    """
    from zk0.data.convert import convert_dataset  # with LeRobot, which a look at data does without

    _, dataset = open_source(root, Source.of_owner(text))
    done = convert_dataset(dataset.root, root / target.expanduser())
    said = "converted" if done.fresh else "was converted before, and is as its source still says"
    console.print(f"{done.folder} {said}: {done.episodes} episodes, {done.frames} frames", markup=False)
    console.print(f"its source in params: local:{target}   look at it: zk0 data check local:{target}", markup=False)


def open_source(root: Path, source: Source) -> tuple[str, DatasetFolder]:
    """Revision, empty for a folder, and dataset of a source that lies somewhere already, in whatever format.

    Raises:
        DataError: It is simulated, or cannot be found.
    """
    if source.kind == "sim":
        raise DataError(f"{source} is recorded by `zk0 prepare`; there is nothing yet")
    try:
        commit = "" if source.kind == "local" else hub_commit(source.name, source.revision or "main", "dataset")
    except ValueError as error:
        raise DataError(str(error)) from error
    return commit, find_dataset(root, source.name, source, commit, any_format=True)
