"""Play a bag through a depth node over real DDS and hand back everything that came out.

    outcome = replay_through_node(bag_path, settings, log_path=path)
    outcome.collector.drops(), outcome.collector.image(DEPTH, stamp), ...

The node runs in a process of its own; player and collector share this one, so both ends of a
latency are read from one clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.ros.collector import OutputCollector, spinning
from depth_fusion_ros.ros.environment import share_file
from depth_fusion_ros.ros.node_process import NodeProcess
from depth_fusion_ros.ros.player import BagPlayer, PlayReport
from depth_fusion_ros.ros.replay_paths import DUAL_PIXEL, PATHS, ReplayPath

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class ReplaySettings:
    """How to replay.

    Attributes:
        path: which node, and what makes a set of its inputs.
        parameters: of the node, over `params_file`, e.g. {"model.path": "closed_form"}.
        params_file: YAML of the node; None = the path's own.
        rate: speed against the recording.
        namespace: of all topics.
        start_timeout_s: longest wait for the node to become active.
        finish_timeout_s: longest wait for the last sets after the bag has ended.
        more_topics: output topic -> message type, collected besides the collector's own.
    """

    path: ReplayPath = DUAL_PIXEL
    parameters: Mapping[str, Any] = field(default_factory=dict)
    params_file: Path | None = None
    rate: float = 1.0
    namespace: str = names.DEFAULT_NAMESPACE
    start_timeout_s: float = 180.0
    finish_timeout_s: float = 20.0
    more_topics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReplayOutcome:
    """What came out: the collector with all outputs, the player's counts, the node's exit status.

    `start_s` is the wall time from starting the process to the node being active.
    """

    collector: OutputCollector
    played: PlayReport
    start_s: float
    exit_status: int | None


def replay_through_node(
    bag_path: Path,
    settings: ReplaySettings,
    *,
    log_path: Path,
    on_progress: Progress = lambda *_: None,
) -> ReplayOutcome:
    """Start the node, play the bag, wait until every set is accounted for, stop the node.

    Raises:
        NodeFailure: the node died or did not become active; with the tail of its log.
        BagError: the bag cannot be read, or has nothing for the path.
        RuntimeError: the node became active but does not subscribe to the inputs.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("depth_fusion_replay", context=context)
    try:
        process = NodeProcess(
            settings.path.executable,
            _node_arguments(settings),
            log_path=log_path,
            namespace=settings.namespace,
        )
        with BagReader(bag_path) as bag:
            images = _images_in(bag, settings)
            sets = settings.path.sets(bag, settings.namespace)
        collector = OutputCollector(node, settings.namespace, path=settings.path, sets=sets,
                                    more_topics=settings.more_topics)
        with BagReader(bag_path) as bag, process, spinning(node):
            player = BagPlayer(node, bag, rate=settings.rate)
            started = time.monotonic()
            process.wait_active(
                node,
                timeout_s=settings.start_timeout_s,
                on_wait=lambda: on_progress("starting the node", 0, 1),
            )
            start_s = time.monotonic() - started
            on_progress("starting the node", 1, 1)
            _wait_for_inputs(player, settings)
            played = _play(player, images, collector, process, on_progress)
            player.keep_clock_running(
                settings.finish_timeout_s,
                lambda: collector.accounted() or process.return_code is not None,
            )
            process.check()
            player.keep_clock_running(0.3, lambda: False)  # late images of the last set
            exit_status = process.stop()
        return ReplayOutcome(collector, played, start_s, exit_status)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def play_bag(
    bag: BagReader,
    *,
    rate: float = 1.0,
    topics: Collection[str] = (),
    publish_clock: bool = True,
    wait_s: float = 0.0,
    namespace: str = names.DEFAULT_NAMESPACE,
    on_progress: Progress = lambda *_: None,
) -> PlayReport:
    """Play an open bag for whoever listens; see BagPlayer for the arguments.

    Args:
        wait_s: longest wait for a subscriber to the left view or the slices (or, in a bag without
            either, to its first topic); then the bag is played anyway.

    Raises:
        ValueError: rate or topics are wrong. BagError: the bag is damaged further in.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("bag_play", context=context)
        player = BagPlayer(node, bag, rate=rate, topics=topics, publish_clock=publish_clock)
        images = [names.resolve(namespace, path.image_topic) for path in PATHS]
        awaited = [t for t in images if t in player.publishers] or list(player.publishers)[:1]
        if wait_s > 0:
            on_progress("waiting", 0, 1)
            player.wait_for_subscribers(awaited, wait_s)
            player.keep_clock_running(0.5, lambda: False)
        total = sum(t.message_count for t in bag.topics if t.name in player.publishers)
        done = 0

        def on_published(*_: object) -> None:
            nonlocal done
            done += 1
            on_progress("playing", done, total)

        return player.play(on_published=on_published)
    finally:
        rclpy.shutdown(context=context)


def _node_arguments(settings: ReplaySettings) -> list[str]:
    params_file = settings.params_file or share_file(settings.path.params_file)
    arguments = ["--params-file", str(params_file), "-p", "use_sim_time:=true"]
    for name, value in settings.parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        arguments += ["-p", f"{name}:={text}"]
    return arguments


def _wait_for_inputs(player: BagPlayer, settings: ReplaySettings) -> None:
    inputs = [names.resolve(settings.namespace, topic) for topic in settings.path.input_topics]
    if missing := player.wait_for_subscribers(inputs, timeout_s=20.0):
        raise RuntimeError(
            f"the node is active but nobody subscribes to {', '.join(missing)}: check the bag's "
            "topics and that node and player are in one ROS domain with one DDS profile"
        )
    player.keep_clock_running(0.5, lambda: False)  # the node's side of the match, and its clock


def _images_in(bag: BagReader, settings: ReplaySettings) -> int:
    """Return how many images the bag has for the path; refuse one that has none."""
    topic = names.resolve(settings.namespace, settings.path.image_topic)
    counts = {recorded.name: recorded.message_count for recorded in bag.topics}
    if not counts.get(topic):
        raise BagError(
            f"bag {bag.path}: has no message of {topic}, which {settings.path.executable} needs; "
            "replay it through the other path, or give the namespace it was recorded in"
        )
    return counts[topic]


def _play(
    player: BagPlayer,
    images: int,
    collector: OutputCollector,
    process: NodeProcess,
    on_progress: Progress,
) -> PlayReport:
    """Play; progress counts the images of the path. Ends early if the node dies."""

    def on_published(topic: str, stamp_ns: int, monotonic_s: float) -> None:
        collector.note_published(topic, stamp_ns, monotonic_s)
        on_progress("playing the bag", collector.images_sent, images)

    played = player.play(
        on_published=on_published, should_stop=lambda: process.return_code is not None
    )
    process.check()
    return played
