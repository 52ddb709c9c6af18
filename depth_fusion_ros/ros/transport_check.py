"""Do large best-effort messages arrive? Two processes, one ROS domain, messages of several sizes.

    for result in check_transport((0.2, 1.0, 4.0)):
        print(result.size_mb, result.received, "of", result.sent)

The receiver is this module run as a script in a child process. Nav2 and most image consumers
subscribe best effort; with stock Fast DDS what is larger than 0.5 MB is lost there without a word.
"""

from __future__ import annotations

import array
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from depth_fusion_ros.ros.environment import child_environment

TOPIC = "/depth_fusion_transport_check"
REMEDY = (
    "set FASTDDS_DEFAULT_PROFILES_FILE to config/dds/fastdds_large_data.xml for every process (the "
    "launch files do), give the container a larger /dev/shm (docker run --shm-size=1g or "
    "--ipc=host), or subscribe reliable"
)


@dataclass(frozen=True)
class TransportResult:
    """How many best-effort messages of one size (MB of 10^6 bytes) arrived, and how fast."""

    size_mb: float
    sent: int
    received: int
    median_ms: float

    @property
    def is_good(self) -> bool:
        """True if at least 9 of 10 arrived; best effort may lose one."""
        return self.received >= 0.9 * self.sent


def check_transport(
    sizes_mb: Sequence[float] = (0.2, 1.0, 4.0),
    *,
    messages: int = 15,
    rate_hz: float = 15.0,
    domain_id: int | None = None,
    environment: dict[str, str] | None = None,
) -> list[TransportResult]:
    """Send best-effort images to a child process and count what arrives there.

    Args:
        sizes_mb: sizes of the messages' data in MB.
        messages: number of messages of each size.
        rate_hz: pace of sending.
        domain_id: ROS domain to use; None = that of this process.
        environment: of the receiver; default `child_environment`.

    Raises:
        RuntimeError: the receiver did not start, or the two never found each other.
    """
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    topic = f"{TOPIC}_{os.getpid()}"  # checks of two processes do not hear each other
    receiver = subprocess.Popen(
        [sys.executable, "-m", "depth_fusion_ros.ros.transport_check", topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment or child_environment(domain_id=domain_id),
        text=True,
    )
    assert receiver.stdout is not None and receiver.stdin is not None
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        node = rclpy.create_node("transport_check_sender", context=context)
        profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        publisher = node.create_publisher(Image, topic, profile)
        if receiver.stdout.readline().strip() != "ready":
            raise RuntimeError("the receiving process did not start; run doctor again to see it")
        deadline = time.monotonic() + 10.0
        while publisher.get_subscription_count() == 0:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    "two processes on this computer do not find each other within 10 s: check "
                    "RMW_IMPLEMENTATION, ROS_AUTOMATIC_DISCOVERY_RANGE, the firewall for UDP on "
                    "127.0.0.1, and that /dev/shm is writable"
                )
            time.sleep(0.05)
        time.sleep(0.3)  # the receiver's side of the match
        for size_mb in sizes_mb:
            image = Image(encoding="8UC1", height=1, width=int(size_mb * 1e6))
            image.data = array.array("B", bytes(image.width))
            for _ in range(messages):
                stamp = time.monotonic_ns()  # one clock for all processes of a computer
                image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp, 10**9)
                publisher.publish(image)
                time.sleep(1.0 / rate_hz)
        time.sleep(0.5)
        out, _ = receiver.communicate("\n", timeout=15.0)
        delays_ms: dict[str, list[float]] = json.loads(out)
    finally:
        if receiver.poll() is None:
            receiver.kill()
            receiver.wait()
        rclpy.shutdown(context=context)
    results = []
    for size_mb in sizes_mb:
        delays = sorted(delays_ms.get(str(int(size_mb * 1e6)), []))
        median = delays[len(delays) // 2] if delays else float("nan")
        results.append(TransportResult(size_mb, messages, len(delays), median))
    return results


def receive(topic: str) -> None:
    """Count images by size until a line comes in on stdin; print {bytes: [delay in ms]}."""
    import threading

    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    delays_ms: dict[int, list[float]] = {}

    def on_image(image: Image) -> None:
        stamp = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
        delays_ms.setdefault(image.width, []).append((time.monotonic_ns() - stamp) * 1e-6)

    rclpy.init()
    node = rclpy.create_node("transport_check_receiver")
    node.create_subscription(Image, topic, on_image, qos_profile_sensor_data)
    stop = threading.Event()

    def wait_for_line() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait_for_line, daemon=True).start()
    print("ready", flush=True)
    while not stop.is_set():
        rclpy.spin_once(node, timeout_sec=0.05)
    print(json.dumps(delays_ms), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    receive(sys.argv[1])
