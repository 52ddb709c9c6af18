"""`ManagedNode`: a lifecycle node that can start itself and ends in order from any state."""

from __future__ import annotations

from rclpy.clock import Clock
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn


class ManagedNode(LifecycleNode):
    """Base of our lifecycle nodes: a subclass says what halting and releasing mean for it.

    It makes things in `on_configure` and starts in `on_activate`, and calls the base's.
    """

    def halt(self) -> None:
        """Stop what activation started; called in any state, so also where nothing runs."""
        raise NotImplementedError

    def release(self) -> None:
        """Free what configuring made; called in any state."""
        raise NotImplementedError

    def start_itself(self, clock: Clock) -> None:
        """Configure and activate as soon as the executor spins.

        Args:
            clock: that runs whatever time the node is on: bag time may stand still.
        """
        self._autostart = self.create_timer(0.0, self._on_autostart, clock=clock)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop; what configuring made stays."""
        self.halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what configuring made."""
        answer = super().on_cleanup(state)
        self.release()
        return answer

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, from any state."""
        self.halt()
        answer = super().on_shutdown(state)
        self.release()
        return answer

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, so that the node is as if never configured."""
        self.halt()
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def _on_autostart(self) -> None:
        self.destroy_timer(self._autostart)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()
