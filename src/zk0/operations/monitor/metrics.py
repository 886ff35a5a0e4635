"""A snapshot as Prometheus' metrics: a custom collector, so that a scrape tells what is there at that moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zk0.operations.monitor.alerts import RULES, Alert
from zk0.operations.monitor.progress import Progress
from zk0.operations.monitor.snapshot import Snapshot

_LOSSES = ("train_loss", "held_out_loss")


class SnapshotCollector(Collector):
    """Metrics of whatever ``look`` returns when Prometheus asks."""

    def __init__(self, look: Callable[[], tuple[Snapshot, tuple[Alert, ...]]]) -> None:
        """Ask ``look`` for a snapshot and the alerts that are open."""
        self._look = look

    def describe(self) -> list[Metric]:
        """Nothing is looked at when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of the present moment."""
        snapshot, alerts = self._look()
        yield from _services(snapshot)
        yield from _sites(snapshot)
        if snapshot.progress is not None:
            yield from _run(snapshot.progress)
        firing = {rule: float(sum(alert.rule == rule for alert in alerts)) for rule in RULES}
        yield _gauge("zk0_alerts", "Alerts that are open", "rule", firing)


def _services(snapshot: Snapshot) -> Iterator[Metric]:
    services, certificates = snapshot.services, snapshot.certificates
    yield _gauge("zk0_service_up", "Whether a service runs", "service", {s.name: float(s.up) for s in services})
    memory = {s.name: s.memory_bytes for s in services if s.up}
    yield _gauge("zk0_service_memory_bytes", "Resident memory of a service", "service", memory)
    ends = {one.name: one.expires.timestamp() for one in certificates}
    yield _gauge("zk0_certificate_expires_timestamp_seconds", "A certificate's end", "certificate", ends)
    yield GaugeMetricFamily("zk0_disk_free_bytes", "Free on the project's disk", value=snapshot.disk_free_bytes)


def _sites(snapshot: Snapshot) -> Iterator[Metric]:
    admitted = {state.site.name: float(state.site.admitted) for state in snapshot.sites}
    yield _gauge("zk0_site_admitted", "Whether a site may take part", "site", admitted)
    seen = {state.site.name: state.seen for state in snapshot.sites if state.seen is not None}
    yield _gauge("zk0_site_seen_timestamp_seconds", "A site's last request", "site", seen)


def _run(progress: Progress) -> Iterator[Metric]:
    run = progress.run
    active, last = float(progress.active), float(progress.round)
    yield _gauge("zk0_run_active", "Whether the run has begun and not ended", "run", {run: active})
    yield _gauge("zk0_round", "The last complete round", "run", {run: last})
    yield _gauge("zk0_round_timestamp_seconds", "When the last round ended", "run", {run: progress.round_ended})
    failed = CounterMetricFamily("zk0_failed_rounds", "Rounds that could not be completed", labels=["run"])
    failed.add_metric([run], progress.failures)
    left_out = CounterMetricFamily("zk0_left_out", "Replies that were not used", labels=["run", "site", "reason"])
    for (site, kind), count in Counter((one.site, one.kind) for one in progress.left_out).items():
        left_out.add_metric([run, site, kind], count)
    moved = CounterMetricFamily("zk0_bytes", "Bytes of messages", labels=["run", "site", "direction"])
    for site, ways in progress.bytes.items():
        for way, size in ways.items():
            moved.add_metric([run, site, way], size)
    yield from (failed, left_out, moved)
    if progress.rows:
        yield from _last_round(progress)


def _last_round(progress: Progress) -> Iterator[Metric]:
    run, row = progress.run, progress.rows[-1]
    if row.round_s is not None:
        yield _gauge("zk0_round_duration_seconds", "The last round's", "run", {run: row.round_s})
    for name in _LOSSES:
        if (mean := getattr(row, name)) is not None:
            yield _gauge(f"zk0_{name}", "After the last round, over all sites", "run", {run: mean})
        of_sites = GaugeMetricFamily(f"zk0_site_{name}", "After the last round", labels=["run", "site"])
        for site, values in row.sites.items():
            if (loss := getattr(values, name)) is not None:
                of_sites.add_metric([run, site], loss)
        yield of_sites


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family
