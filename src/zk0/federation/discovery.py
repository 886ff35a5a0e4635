"""Who takes part in a run: the sites' manifests, asked for first of all, and whether one model can serve them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from flwr.app import Message, RecordDict

from zk0.data.frames import IMAGES
from zk0.data.manifest import Manifest
from zk0.federation import answers, protocol
from zk0.federation.server import FederationError, Server
from zk0.policy.checkpoint import LoadedPolicy
from zk0.so100 import embodiment

# What finds the sites of a run, has the server serve them, and gives their manifests in partition order.
Meet = Callable[[Server], list[Manifest]]


def meet(server: Server) -> list[Manifest]:
    """Serve every node of the Grid as the partition of its place there: all sites are in this process.

    A node whose summary is refused is left out, as it would be of a round.

    Raises:
        FederationError: Too few nodes tell what data they have; names those that do not, and why.
    """
    places = {node: place for place, node in enumerate(server.grid.get_node_ids())}
    found: dict[int, tuple[int, Manifest]] = {}
    for node, answer in ask_summaries(server, places, {node: f"node {node}" for node in places}):
        place = places[node]
        if isinstance(answer, Manifest) and answer.partition != place:
            answer = answers.ReplyError(f"its manifest is of partition {answer.partition}, expected {place}")
        if isinstance(answer, answers.ReplyError):
            server.leave_out(f"node {node}", 0, f"it has no data to train on: {answer}")
        else:
            found[place] = (node, answer)
    server.enough(len(found), 0, "told what data they have", len(places))
    return server.serve(found)


def ask_summaries(
    server: Server,
    partitions: Mapping[int, int],
    names: Mapping[int, str],
    known: Callable[[int], Mapping[str, object]] = lambda _: {},
    timeout_s: float | None = None,
) -> Iterator[tuple[int, Manifest | answers.ReplyError]]:
    """Ask nodes for their manifests, and yield each node's, or why it has none.

    Args:
        server: Speaks to them.
        partitions: From node to the partition by which to address it.
        names: From node to what to call it.
        known: What is known better of a node's manifest than by its own word.
        timeout_s: How long to wait; who has not answered by then is left out. None waits for all.
    """
    messages, awaited = [], {}
    for node, partition in partitions.items():
        content = RecordDict()
        awaited[node] = protocol.Header(run=server.run, round=0, partition=partition)
        protocol.write(content, awaited[node])
        messages.append(Message(content, node, protocol.SUMMARY, group_id="0"))
    for message in server.grid.send_and_receive(messages, timeout=timeout_s):
        node = message.metadata.src_node_id
        if node not in awaited:
            continue
        try:
            values = answers.parse(message, protocol.SUMMARY, awaited.pop(node), names[node], {})
            yield node, answers.manifest_in(values, **known(node))
        except answers.ReplyError as error:
            yield node, error


_ONE_KIND = "a federation trains one kind of robot at one rate (data.fps, data.every)"
_EMPTY = f"{IMAGES}.empty_camera_"  # what a policy with ``empty_cameras`` calls those that nobody has


def check_alike(manifests: Sequence[Manifest]) -> None:
    """Refuse sites that one model cannot serve; sites on several machines meet here for the first time.

    Args:
        manifests: The sites', as they sent them.

    Raises:
        FederationError: Names two sites and in what they differ.
    """
    first = manifests[0]
    for other in manifests[1:]:
        if found := _difference(first, other):
            raise FederationError(f"sites '{first.site}' and '{other.site}' have other {found}; {_ONE_KIND}")


def misfits(manifests: Mapping[int, Manifest], loaded: LoadedPolicy, missing: str) -> dict[int, str]:
    """Which sites a run can only do without: what each says of its arm and cameras is its own word alone.

    The arm is that of most sites; of as many, that of the lowest number.

    Args:
        manifests: The sites', by partition, as they sent them.
        loaded: The starting policy.
        missing: ``data.missing_cameras``.

    Returns:
        Partition to why its data does not fit, for those where it does not.
    """
    kinds = Counter(tuple(_kind(one).values()) for one in manifests.values())
    found: dict[int, str] = {}
    usual = max(manifests.values(), key=lambda one: kinds[tuple(_kind(one).values())], default=None)
    for partition, manifest in manifests.items():
        if usual and (difference := _difference(usual, manifest)):
            found[partition] = f"most sites have other {difference}; {_ONE_KIND}"
            continue
        try:
            check_cameras([manifest], loaded, missing)
        except FederationError as error:
            found[partition] = str(error)
    return found


def _difference(mine: Manifest, theirs: Manifest) -> str | None:
    """What one model cannot serve in two sites, and both sites' of it."""
    other = _kind(theirs)
    return next((f"{what}: {one} and {other[what]}" for what, one in _kind(mine).items() if one != other[what]), None)


def _kind(manifest: Manifest) -> dict[str, Hashable]:
    """What all sites of one model must have alike."""
    return {
        "robots": embodiment(manifest.robot_type),
        "frames per second": manifest.fps,
        "joints": manifest.joints,
    }


def check_cameras(manifests: Sequence[Manifest], loaded: LoadedPolicy, missing: str) -> None:
    """Refuse sites with cameras that the policy does not know, without one that it does, or of a size it cannot take.

    A camera that is missing and allowed to be is hidden from the policy: SmolVLA reads the pictures that are there and
    no token of the others, as LeRobot does with ``empty_cameras``.

    Args:
        manifests: The sites', as they sent them.
        loaded: The starting policy.
        missing: ``data.missing_cameras``.

    Raises:
        FederationError: Names the site, its cameras and the policy's, and what to put into params.
    """
    features = loaded.policy.config.image_features
    known = ", ".join(features)
    for manifest in manifests:
        site, cameras = manifest.site, set(manifest.cameras)
        if strange := sorted(cameras - set(features)):
            short = strange[0].removeprefix(f"{IMAGES}.")
            raise FederationError(
                f"site '{site}' has cameras {', '.join(strange)}, which the policy does not know; it knows {known}. "
                f"Map them (data.cameras: {{{site}: {{{short}: POLICY'S}}}}), or leave them out ({short}: null)"
            )
        lacking = sorted(name for name in set(features) - cameras if not name.startswith(_EMPTY))
        if lacking and missing != "empty":
            raise FederationError(
                f"site '{site}' has no camera {', '.join(lacking)}, which the policy knows; it has "
                f"{', '.join(sorted(cameras))}. Map one to it with data.cameras, or hide from the policy what a site "
                "lacks (data.missing_cameras: empty)"
            )
        if loaded.policy.config.resize_imgs_with_padding is None:
            _check_sizes(manifest, {name: tuple(feature.shape) for name, feature in features.items()})


def _check_sizes(manifest: Manifest, expected: Mapping[str, tuple[int, ...]]) -> None:
    """A policy that does not resize pictures itself takes one size only; stretching them is nobody's business."""
    for camera in manifest.cameras:
        shape = manifest.image_shapes.get(camera, (0, 0, 0))
        if shape != expected[camera]:
            raise FederationError(
                f"site '{manifest.site}': {camera} is {_size(shape)}, and the policy, which does not resize "
                f"(resize_imgs_with_padding is not set), takes {_size(expected[camera])}; record that size, or start "
                "from a policy that resizes"
            )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[2]}"
