"""`/diagnostics` of a depth node (REP-107), right under bag time.

diagnostic_updater is not used: its Python tasks build clocks of their own and report healthy
topics as errors on replay, and a second updater on a node raises. A task here is a function that
returns a `Status`; numbers are separate KeyValues; names are ``<node>: <task>``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR


@dataclass
class Status:
    """What a task found.

    Attributes:
        level: OK, WARN or ERROR.
        message: one line; for a problem also what to do.
        values: numbers and words by name; None is shown as n/a.
    """

    level: bytes
    message: str
    values: dict[str, Any] = field(default_factory=dict)


Task = Callable[[], Status]


class Diagnostics:
    """Publishes the status of all tasks once per period."""

    def __init__(self, node: Any, tasks: Mapping[str, Task], period_s: float) -> None:
        """Start a timer on ``node``, in wall time: diagnostics go on while bag time stands still.

        Args:
            node: rclpy node; its name is the prefix and its clock stamps the messages.
            tasks: name -> function.
            period_s: wall time between two messages.
        """
        from rclpy.clock import Clock, ClockType

        self._node = node
        self._tasks = dict(tasks)
        self.hardware_id = ""
        """Shown with every status: "<model> on <device>"."""
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(
            period_s, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def publish(self) -> None:
        """Run all tasks and publish what they say; a task that raises is reported as an error."""
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [self._run(name, task) for name, task in self._tasks.items()]
        self._publisher.publish(array)

    def _run(self, name: str, task: Task) -> DiagnosticStatus:
        try:
            status = task()
        except Exception as error:  # a broken task must not end the others
            status = Status(ERROR, f"this diagnostic failed: {error}")
        return DiagnosticStatus(
            level=status.level,
            name=f"{self._node.get_name()}: {name}",
            message=status.message,
            hardware_id=self.hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in status.values.items()],
        )


def _text(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
