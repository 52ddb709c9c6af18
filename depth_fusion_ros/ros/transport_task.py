"""The diagnostics task `transport`: do large messages arrive, and who cannot hear our topics?"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Thread
from typing import Any

from depth_fusion_ros.ros.diagnostics import OK, WARN, Status
from depth_fusion_ros.ros.parameters import Parameter
from depth_fusion_ros.ros.qos import deaf_subscribers
from depth_fusion_ros.ros.transport_check import REMEDY, TransportResult, check_transport

MESSAGES, RATE_HZ = 10, 20.0

TRANSPORT_ROWS = (
    Parameter("transport.self_test", True, "When first activated, send images of 0.2, 1 and 4 MB "
              "best effort to a process beside the node and tell in diagnostics whether they "
              "arrive (2 s; nothing leaves the computer but discovery)."),
)


class TransportTask:
    """Runs `check_transport` once, in a thread beside the node's work, and keeps what it found."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._thread: Thread | None = None
        self._results: list[TransportResult] = []
        self._failure = ""
        self.publishers: Iterable[Any] = ()
        """Publishers of the node whose subscribers are looked at."""

    def start(self) -> None:
        """Begin the test, if the parameters ask for it and it has not run before."""
        if self._node.values["transport.self_test"] and self._thread is None:
            self._thread = Thread(target=self._run, name="transport", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._results = check_transport(messages=MESSAGES, rate_hz=RATE_HZ,
                                            domain_id=self._node.context.get_domain_id())
        except Exception as error:  # a test that fails is a finding, not the end of the node
            self._failure = f"{error}" or type(error).__name__

    def status(self) -> Status:
        """What was found."""
        values: dict[str, Any] = {}
        for result in self._results:
            name = f"best_effort_{result.size_mb:g}MB"
            values[f"{name}_received"] = f"{result.received} of {result.sent}"
            values[f"{name}_median_ms"] = result.median_ms if result.received else None
        deaf = {publisher.topic_name: names for publisher in list(self.publishers)
                if (names := deaf_subscribers(self._node, publisher))}
        values.update({f"incompatible_subscribers.{topic}": ", ".join(names)
                       for topic, names in deaf.items()})
        bad = [result for result in self._results if not result.is_good]
        if bad:
            return Status(WARN, "best-effort subscribers lose images of " + ", ".join(
                f"{result.size_mb:g} MB" for result in bad) + f": {REMEDY}", values)
        if deaf:
            return Status(WARN, "not heard by " + "; ".join(
                f"{', '.join(names)} on {topic}" for topic, names in deaf.items())
                + ": change their QoS, or ours through qos_overrides", values)
        if self._failure:
            return Status(WARN, f"the self-test failed: {self._failure}", values)
        if self._thread is None:
            return Status(OK, "not tested", values)
        if not self._results:
            return Status(OK, "the self-test is running", values)
        return Status(OK, "images of " + ", ".join(
            f"{result.size_mb:g} MB" for result in self._results) + " arrive best effort", values)
