"""The ClientApp: what a site does when the server asks.

Everything about a site's data is computed here; what leaves is a summary, moments, an encoded
update and metrics, each as a Flower message, on every engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from zk0.evaluation.held_out import held_out_loss
from zk0.federation import codecs, protocol, wire
from zk0.federation.broadcast import MissingModel
from zk0.federation.home import Home
from zk0.federation.privacy.site import SitePrivacy, demanded
from zk0.federation.site import Site, Warm, site_at, warm_policy
from zk0.federation.state import SiteMemory, Version
from zk0.federation.statistics import moments_of, unpack_stats
from zk0.policy.checkpoint import LoadedPolicy
from zk0.records.journal import Journal
from zk0.training.local import LocalTask, train_locally

app = ClientApp()


def _warm(site: Site, task: protocol.SiteTask, node: Mapping[str, Any]) -> Warm:
    """The policy, from where and on the device that the site has it where its node says so."""
    base, device = str(node.get("base", task.base)), str(node.get("device", task.device))
    return warm_policy(site.root, base, device, task.adapters, task.seed if task.adapters.rank else 0)


def _fitted(warm: Warm, content: RecordDict) -> LoadedPolicy:
    """The policy with the normalisation that the message tells."""
    return warm.fitted(unpack_stats(wire.unpack(content, protocol.STATS)))


def _reply(
    message: Message, task: protocol.Header, records: dict[str, ArrayRecord] | None = None, **values: Any
) -> Message:
    content = RecordDict()
    header = protocol.Header(run=task.run, round=task.round, partition=task.partition)
    protocol.write(content, header, **values)
    for name, record in (records or {}).items():
        wire.put(content, name, record)
    return Message(content, reply_to=message)


@app.query("summary")
def summary(message: Message, context: Context) -> Message:
    """Which data the site has: its manifest without per-episode digests."""
    header, _ = protocol.read(message.content)
    return _reply(message, header, manifest=site_at(context.node_config).manifest.content())


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """Moments of the site's training frames, for the common normalisation."""
    header, _ = protocol.read(message.content)
    if demanded(context.node_config):
        raise PermissionError("this site's owner demands privacy: it tells no statistics; run with privacy.mode site")
    moments = moments_of(site_at(context.node_config).train_frames)
    return _reply(message, header, {protocol.MOMENTS: wire.encode(moments.to_tensors())})


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train locally from the global model; answer with the encoded difference."""
    task, values = protocol.read(message.content, protocol.SiteTask)
    site = site_at(context.node_config)
    warm = _warm(site, task, context.node_config)
    try:
        start = warm.held.receive(message.content, values[protocol.MODEL])
    except MissingModel as missing:
        return _reply(message, task, None, **{protocol.LACKS: str(missing)})
    memory = SiteMemory.of(site.root, task.run, task.partition)
    memory.prune(task.keep)
    before = memory.load(task.used)
    home = Home.of(memory, task.local)
    begin = home.into(start, task.used)
    processes = int(context.node_config.get("processes", 1))
    local = LocalTask(
        task.seed, task.partition, task.round, task.training, task.decay_steps, task.proximal_mu, processes
    )
    loaded = _fitted(warm, message.content)
    warm.shown = None
    features = site.features("train", loaded, task.features)
    result = train_locally(loaded, site.train_frames, begin, local, features, before.moments or None)
    update, left, loss = result.update(begin), before.residual, result.loss
    home.keep(task.round, begin, update)
    more: dict[str, float] = {"frames": len(site.train_frames)}
    if privacy := SitePrivacy.of(task.privacy, context.node_config):
        update, left = privacy.update(task.round, update, left), {}
        loss, more = privacy.training_loss(loss), {"epsilon": privacy.ledger.epsilon}
    encoded, residual = codecs.encode_with_error(codecs.codec_named(task.uplink), update, left)
    memory.save(task.round, Version(residual, result.moments or {}))
    return _reply(
        message,
        task,
        {protocol.DELTA: wire.record_of(encoded)},
        train_loss=loss,
        examples=result.examples,
        train_s=result.seconds,
        learning_rate=result.learning_rate,
        **more,
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Judge a model on the site's held-out episodes."""
    began = time.perf_counter()
    task, values = protocol.read(message.content, protocol.SiteTask)
    site, privacy = site_at(context.node_config), SitePrivacy.of(task.privacy, context.node_config)
    warm = _warm(site, task, context.node_config)
    told = values[protocol.MODEL]
    try:
        model = warm.held.receive(message.content, told)
    except MissingModel as missing:
        return _reply(message, task, None, **{protocol.LACKS: str(missing)})
    home = Home.of(SiteMemory.of(site.root, task.run, task.partition), task.local)
    warm.show(f"{told['digest']}/{task.partition}" if task.local else told["digest"], home.into(model, task.round))
    loaded = _fitted(warm, message.content)
    frames, features = site.held_out_frames, site.features("held-out", loaded, task.features)
    loss = held_out_loss(loaded, frames, task.evaluation.loss_draws, task.seed, features)
    results: dict[str, Any] = {"held_out_loss": loss, "frames": len(frames)}
    if privacy:  # how many frames there are tells of the data, so every site weighs the same
        noised = privacy.held_out_loss(task.round, loss)
        results = {"held_out_loss": noised, "frames": 1, "epsilon": privacy.ledger.epsilon}
    return _reply(message, task, **results, evaluate_s=time.perf_counter() - began)


def training_by(train: Callable[[Message, Context], Message], app: ClientApp) -> ClientApp:
    """A ClientApp that trains by a function of its own, and answers all else as another one does."""
    result = ClientApp()
    result.train()(train)
    for register in (result.query("summary"), result.query("statistics"), result.evaluate()):
        register(app)
    return result


def noted(app: ClientApp, journal: Journal) -> ClientApp:
    """The same ClientApp, which says in a journal when a site has trained and when its update is ready to be sent.

    It tells times and sizes only: what a site learned is the server's to tell, with the privacy that the run has.
    """

    def train(message: Message, context: Context) -> Message:
        began = time.perf_counter()
        reply = app(message, context)
        if reply.has_error() or protocol.DELTA not in reply.content:  # it asks for the model first
            return reply
        header, values = protocol.read(reply.content)
        site, trained = site_at(context.node_config).manifest.site, float(values["train_s"])
        journal.say("local-training", f"{site} has trained", round=header.round, site=site, seconds=trained)
        update = reply.content[protocol.DELTA]
        journal.say(
            "extract",
            f"{site}'s update is ready",
            round=header.round,
            site=site,
            seconds=time.perf_counter() - began - trained,
            tensors=len(update),
            bytes=wire.payload_bytes(reply.content),
        )
        return reply

    return training_by(train, app)
