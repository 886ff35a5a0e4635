"""`zk0 compare`: two models on the scenes that both met, judged again if that is wanted."""

from __future__ import annotations

from pathlib import Path

from rich.table import Column, Table

from zk0.console import console, folded_table
from zk0.data.manifest import Manifest, read_manifests
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.evaluation.paired import Difference
from zk0.evaluation.scores import METRICS, Comparison, IncomparableError, Metric, Scores
from zk0.evaluation.scores import compare as compare_scores
from zk0.params import Params
from zk0.records.results import MODELS, Evaluation, Model
from zk0.reporting import format as fmt
from zk0.tracking.gate import in_words
from zk0.tracking.registry import read_checkpoint, read_scores

_ROLES = {"site": "sites' tasks", "unseen": "unseen tasks"}


def compare(root: Path, params: Params, first: str, second: str, anew: bool = False) -> None:
    """Print the paired comparison of two models by every metric that both have.

    Args:
        root: Project folder.
        params: The project's.
        first: A model, see :func:`zk0.tracking.registry.read_scores`.
        second: Another.
        anew: Judge both again, on this project's prepared data and its scenes, whatever is kept of them.

    Raises:
        StageError: A model is not there, or the two share no scenes by any metric.
    """
    name = params.tracking.model
    if anew:
        evaluation, labels = judge_anew(root, params, first, second)
        b, a = (Scores.of(evaluation, which, labels[which]) for which in MODELS)
    else:
        a, b = read_scores(root, name, first), read_scores(root, name, second)
    reasons = []
    for metric in METRICS:
        try:
            found = compare_scores(a, b, metric, params.promotion.confidence)
        except IncomparableError as error:
            reasons.append(str(error))
            continue
        console.print(comparison_table(a, b, found, params.promotion.confidence))
        for task, reason in found.left_out.items():
            console.print(f"{task} is left out: {reason}", style="yellow", markup=False)
    if len(reasons) == len(METRICS):
        raise StageError("\n".join(reasons))
    for scores in (a, b):
        failed = f"failed: {', '.join(scores.failed)}" if not scores.safe else "passed"
        console.print(f"safety check of {scores.label} {failed}", markup=False)


def judge_anew(root: Path, params: Params, first: str, second: str) -> tuple[Evaluation, dict[Model, str]]:
    """Judge two models, whichever runs they are of, on this project's prepared data and scenes.

    Args:
        root: Project folder, prepared.
        params: The project's.
        first: ``base``, or see :func:`zk0.tracking.registry.read_checkpoint`.
        second: The same.

    Returns:
        What evaluation.json would hold with the first as ``global`` and the second as ``base``, and how to name them.

    Raises:
        TrackingError: There is no such model.
    """
    import torch  # noqa: PLC0415 - slow to import, and only --anew needs it

    from zk0.evaluation.judge import evaluation_of, judge_models  # noqa: PLC0415 - imports torch
    from zk0.federation.site import Site, recorded_limits  # noqa: PLC0415 - imports torch
    from zk0.federation.start import locked_base  # noqa: PLC0415 - imports torch
    from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint  # noqa: PLC0415 - imports torch
    from zk0.policy.start import load_start, resolve_device  # noqa: PLC0415 - imports torch

    torch.set_num_threads(params.threads)
    device = params.policy.device
    loaded: dict[Model, LoadedPolicy] = {}
    labels, files = dict[Model, str](), dict[Model, dict[str, str]]()
    named: tuple[tuple[Model, str], ...] = (("global", first), ("base", second))
    for which, model in named:
        if model == "base":
            source, digest = locked_base(root)
            labels[which], loaded[which] = "the base policy", load_start(root, source, device)
        else:
            folder, labels[which] = read_checkpoint(root, params.tracking.model, model)
            digest, loaded[which] = digest_folder(folder), load_checkpoint(folder, resolve_device(device))
        files[which] = {"digest": digest}
    sites, unseen = read_manifests(root)

    def opened(manifest: Manifest) -> Site:
        return Site(root, manifest, params.data.decoded_limit_bytes)

    limits = recorded_limits([opened(manifest) for manifest in sites])
    about = f"judging {' and '.join(labels.values())}"
    judged = judge_models(loaded, [*sites, *unseen], opened, params, limits, about=about)
    return evaluation_of(files, judged, params, limits), labels


def comparison_table(a: Scores, b: Scores, found: Comparison, confidence: float) -> Table:
    """Task by task and overall: both means, the gain of the first with its interval, and p values."""
    figures = (a.label, b.label, f"gain ({confidence:.0%} interval)", "p better", "p worse", "scenes")
    head = (Column(), *(Column(name, justify="right", overflow="fold") for name in figures))
    table = folded_table(head, title=f"{found.metric}: {a.label} against {b.label}", title_justify="left")
    for task, one in found.tasks.items():
        values = (_value(found.metric, one.a), _value(found.metric, one.b))
        table.add_row(task, *values, *_gain(found.metric, one.gain), str(one.scenes))
    table.add_section()
    for role, gain in found.overall.items():
        mine = [one for one in found.tasks.values() if one.role == role]
        means = (sum(one.a for one in mine) / len(mine), sum(one.b for one in mine) / len(mine))
        values = (_value(found.metric, means[0]), _value(found.metric, means[1]))
        table.add_row(_ROLES.get(role, role), *values, *_gain(found.metric, gain), style="bold")
    return table


def _value(metric: Metric, value: float) -> str:
    """As the report rounds it."""
    return fmt.percent(value) if metric == "success_rate" else fmt.degrees(value)


def _gain(metric: Metric, gain: Difference) -> tuple[str, str, str]:
    low, high = (in_words(metric, end).split(" ")[0] for end in (gain.low, gain.high))
    return f"{in_words(metric, gain.value)} ({low} to {high})", f"{gain.p_better:.2g}", f"{gain.p_worse:.2g}"
