"""One of our nodes as a process of its own: start, wait until active, stop; why it failed.

with NodeProcess("dual_pixel_depth", arguments, log_path=path) as process:
    process.wait_active(node, timeout_s=60.0)     # NodeFailure says what went wrong
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from lifecycle_msgs.srv import GetState
from rclpy.node import Node

from depth_fusion_ros.ros.environment import child_environment

STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
CONFIGURE_FAILED = "cannot configure"  # start of the node's log line that says why


class NodeFailure(RuntimeError):
    """A node process died or did not become active; the text ends with the tail of its log."""


class NodeProcess:
    """A process running ``python -m depth_fusion_ros.nodes.<executable>``.

    Args:
        executable: name of the module in nodes/, also the node's name.
        arguments: after ``--ros-args``.
        log_path: file that receives stdout and stderr.
        namespace: of the node, e.g. "/camera".
        environment: of the process; default `child_environment()`.
    """

    def __init__(
        self,
        executable: str,
        arguments: Sequence[str],
        *,
        log_path: Path,
        namespace: str = "/camera",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = f"{namespace.rstrip('/')}/{executable}"
        self.log_path = log_path
        module = f"depth_fusion_ros.nodes.{executable}"
        self.command = [sys.executable, "-m", module, "--ros-args", "-r", f"__ns:={namespace}"]
        self.command += arguments
        self._environment = dict(environment or child_environment())
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        """Start the process."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("wb")
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # Ctrl-C goes to us, we stop it in order
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the process, politely first."""
        self.stop()

    @property
    def return_code(self) -> int | None:
        """Exit status, None while it runs (negative: killed by that signal)."""
        assert self._process is not None
        return self._process.poll()

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def check(self) -> None:
        """Raise NodeFailure if the process is not running any more."""
        if (code := self.return_code) is not None:
            raise self._failure(f"ended with exit status {code}")

    def wait_active(
        self, node: Node, *, timeout_s: float, on_wait: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until the lifecycle state is active.

        Args:
            node: of the caller, spun by somebody else; asks the state.
            timeout_s: longest wait, wall seconds (the first import of torch takes a while).
            on_wait: called about five times a second, e.g. to draw progress.

        Raises:
            NodeFailure: the process ended, configure failed, or the time is over.
        """
        client = node.create_client(GetState, f"{self.name}/get_state")
        deadline = time.monotonic() + timeout_s
        state = "not on the graph"
        try:
            while time.monotonic() < deadline:
                self.check()
                if client.service_is_ready():
                    future = client.call_async(GetState.Request())
                    _wait(future.done, 2.0)
                    answer = future.result() if future.done() else None
                    state = answer.current_state.label if answer else state
                if state == "active":
                    return
                if state == "unconfigured" and CONFIGURE_FAILED in self.tail(200):
                    raise self._failure("refused its configuration")
                on_wait()
                time.sleep(0.2)
        finally:
            node.destroy_client(client)
        raise self._failure(f"was not active after {timeout_s:g} s (state: {state})")

    def stop(self) -> int | None:
        """End the process with SIGINT, then SIGTERM, then SIGKILL; return its exit status."""
        if self._process is None:
            return None
        for number, patience_s in STOP_SIGNALS:
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(timeout=patience_s)
            except subprocess.TimeoutExpired:
                continue
        if self._log is not None:
            self._log.close()
        return self._process.poll()

    def _failure(self, what: str) -> NodeFailure:
        return NodeFailure(f"{self.name} {what}. End of its log ({self.log_path}):\n{self.tail()}")


def _wait(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
