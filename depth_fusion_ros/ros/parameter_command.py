"""Sets one parameter of another node, without waiting: how cameras are told where to focus.

    command = ParameterCommand(node, "camera_node", "LensPosition", timeout_s=1.0)
    command.send(2.0, now_s, answered)      # answered(accepted: bool) follows, exactly once
    command.tick(now_s)                     # from a timer: answers that do not come
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

Answered = Callable[[bool], None]


class ParameterCommand:
    """See the module's text. Executor thread only.

    Attributes:
        failures: commands that were not taken, by cause: no_service, timeout, refused,
            call_failed.
        sent: commands sent.
    """

    def __init__(self, node: Any, target: str, parameter: str, timeout_s: float,
                 say: Callable[[str, str], None]) -> None:
        """Make the client.

        Args:
            node: rclpy node.
            target: node with the parameter, relative to the namespace or absolute.
            parameter: its name, a double.
            timeout_s: wall time after which an answer does not come any more.
            say: gets cause and sentence of each failure.
        """
        self._node, self._target, self._parameter = node, target, parameter
        self._timeout_s, self._say = timeout_s, say
        self._service = node.resolve_service_name(f"{target}/set_parameters")
        self._client = node.create_client(SetParameters, self._service)
        self._future: Any = None
        self._answered: Answered | None = None
        self._since_s = 0.0
        self._value = 0.0
        self.failures: Counter[str] = Counter()
        self.sent = 0

    @property
    def ready(self) -> bool:
        """Whether the other node is there."""
        return bool(self._client.service_is_ready())

    @property
    def absence(self) -> str:
        """One sentence for a node that is not there."""
        return (f"camera.node = {self._target!r}: no service {self._service}; start the "
                "camera, or set camera.node to its name (ros2 node list)")

    def send(self, value: float, now_s: float, answered: Answered) -> None:
        """Set the parameter; a command that is still open is forgotten."""
        self.cancel()
        request = SetParameters.Request(
            parameters=[Parameter(self._parameter, value=float(value)).to_parameter_msg()])
        self._answered, self._since_s, self._value = answered, now_s, float(value)
        self.sent += 1
        future = self._future = self._client.call_async(request)
        future.add_done_callback(self._on_answer)

    def tick(self, now_s: float) -> None:
        """Give up a command that nobody answers."""
        if self._future is not None and now_s - self._since_s > self._timeout_s:
            sentence = (f"{self._what} was not answered within camera.timeout_s = "
                        f"{self._timeout_s:g} s; is the camera alive?" if self.ready
                        else self.absence)
            self._finish(False, "timeout", sentence)

    def cancel(self) -> None:
        """Forget the open command; nobody is called."""
        future, self._future, self._answered = self._future, None, None
        if future is not None and not future.done():
            self._client.remove_pending_request(future)

    def fail(self, cause: str, sentence: str) -> None:
        """Count and say a failure."""
        self.failures[cause] += 1
        self._say(cause, sentence)

    def destroy(self) -> None:
        """Remove the client."""
        self.cancel()
        self._node.destroy_client(self._client)

    @property
    def _what(self) -> str:
        return f"{self._parameter} = {self._value:g} of {self._target}"

    def _on_answer(self, future: Any) -> None:
        if future is not self._future:
            return  # cancelled: an answer that comes late is for nobody
        try:
            result = future.result().results[0]
        except Exception as error:  # whatever the middleware or the other node did
            self._finish(False, "call_failed", f"{self._what}: {error}")
            return
        self._finish(result.successful, "refused", f"{self._what} was refused: "
                     f"{result.reason or 'no reason given'}; check camera.parameter and sweep.*")

    def _finish(self, accepted: bool, cause: str, sentence: str) -> None:
        answered = self._answered
        self.cancel()
        if not accepted:
            self.fail(cause, sentence)
        if answered is not None:
            answered(accepted)
