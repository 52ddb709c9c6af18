"""QoS of our publishers, and subscriptions that follow the reliability of their publishers.

Publishers are reliable, keep_last 2, overridable with ``qos_overrides`` (REP-2003; a best-effort
publisher gives reliable subscribers nothing). Subscriptions with ``input.reliability: auto`` start
reliable, because best effort loses messages above 0.5 MB on stock Fast DDS, and are made again as
best effort as soon as a publisher that cannot do better shows up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import (
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from depth_fusion_ros.ros.losses import Losses

OUTPUT_DEPTH = 2
REPLAY_OUTPUT_DEPTH = 100


def output_qos(depth: int = OUTPUT_DEPTH) -> QoSProfile:
    """Return the QoS of our publishers: reliable, keep_last."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth,
                      reliability=ReliabilityPolicy.RELIABLE)


def overridable() -> QoSOverridingOptions:
    """Return options that let users override history, depth and reliability from YAML."""
    return QoSOverridingOptions.with_default_policies()


def unheard_publishers(node: Any, subscription: Subscription) -> list[str]:
    """Nodes that publish to a subscription with a QoS that keeps them from it, with the reason."""
    topic = subscription.topic_name
    return _misfits(node.get_publishers_info_by_topic(topic),
                    _own(node, node.get_subscriptions_info_by_topic(topic)),
                    lambda peer, own: qos_check_compatible(peer, own))


def deaf_subscribers(node: Any, publisher: Any) -> list[str]:
    """Nodes that subscribe to a publisher with a QoS that keeps it from them, with the reason."""
    topic = publisher.topic_name
    return _misfits(node.get_subscriptions_info_by_topic(topic),
                    _own(node, node.get_publishers_info_by_topic(topic)),
                    lambda peer, own: qos_check_compatible(own, peer))


def _own(node: Any, endpoints: list[Any]) -> list[Any]:
    """Ours, as the graph tells them: a profile that we ask for leaves times to the middleware."""
    return [end for end in endpoints if (end.node_namespace, end.node_name) == (
        node.get_namespace(), node.get_name())]


def _misfits(peers: list[Any], own: list[Any],
             check: Callable[[QoSProfile, QoSProfile], tuple[QoSCompatibility, str]]) -> list[str]:
    found = []
    for peer in peers:
        for end in own:
            fits, reason = check(peer.qos_profile, end.qos_profile)
            if fits == QoSCompatibility.ERROR:
                name = f"{peer.node_namespace.rstrip('/')}/{peer.node_name}"
                found.append(f"{name} ({reason.replace('ERROR: ', '').strip(' ;')})")
    return found


class InputSubscriptions:
    """The subscriptions of a node's input topics, and the publishers that they cannot hear."""

    def __init__(
        self,
        node: Any,
        topics: dict[str, type],
        on_message: Callable[[str, Any, int], None],
        *,
        reliability: str,
        depth: int,
        keep_all: bool,
    ) -> None:
        """Subscribe.

        Args:
            node: rclpy node.
            topics: relative topic -> message type.
            on_message: called with topic, message and the system time in ns at which the
                middleware received it.
            reliability: auto, reliable or best_effort.
            depth: keep_last depth.
            keep_all: True = keep every message until it is taken (replays).
        """
        self._node, self._types, self._on_message = node, topics, on_message
        self._auto = reliability == "auto"
        self._depth, self._keep_all = depth, keep_all
        self._to_follow: set[str] = set()
        self.losses = Losses()
        start = ReliabilityPolicy.BEST_EFFORT
        if reliability in ("auto", "reliable"):
            start = ReliabilityPolicy.RELIABLE
        self._subscriptions: dict[str, Subscription] = {
            topic: self._subscribe(topic, start) for topic in topics
        }

    def follow(self) -> list[str]:
        """Make subscriptions best effort where needed; return their topics. Call from a timer."""
        followed, self._to_follow = sorted(self._to_follow), set()
        for topic in followed:
            self._node.destroy_subscription(self._subscriptions[topic])
            self._subscriptions[topic] = self._subscribe(topic, ReliabilityPolicy.BEST_EFFORT)
        return followed

    def details(self) -> dict[str, Any]:
        """KeyValues for diagnostics: nodes that cannot be heard, by name, and lost messages."""
        found: dict[str, Any] = {}
        for topic, subscription in self._subscriptions.items():
            if self._auto and subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE:
                continue  # it is about to follow
            if names := unheard_publishers(self._node, subscription):
                found[f"incompatible_publishers.{topic}"] = ", ".join(names)
        return found | {f"lost.{topic}": count for topic, count in self.losses.counts.items()}

    def destroy(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(self, topic: str, reliability: ReliabilityPolicy) -> Subscription:
        history = HistoryPolicy.KEEP_ALL if self._keep_all else HistoryPolicy.KEEP_LAST
        profile = QoSProfile(history=history, depth=self._depth, reliability=reliability)
        deliver = self._on_message

        def callback(message: Any, info: Any) -> None:
            self.losses.note(topic, info)
            deliver(topic, message, int(info["received_timestamp"]) or time.time_ns())

        def incompatible(_: Any) -> None:
            if self._auto and reliability == ReliabilityPolicy.RELIABLE:
                self._to_follow.add(topic)  # not here: the executor holds this subscription

        def lost(event: Any) -> None:
            self.losses.report(topic, int(event.total_count_change))

        events = SubscriptionEventCallbacks(incompatible_qos=incompatible, message_lost=lost)
        return self._node.create_subscription(
            self._types[topic], topic, callback, profile, event_callbacks=events
        )
