"""depth-fusion calibrate-lens --live over real DDS: a camera in another process plays a bag."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from lens_bench_pictures import DrawnCamera, drawn_images
from typer.testing import CliRunner

from depth_fusion_ros.bags.images import stamp_ns
from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.cli.calibrate_lens_live import _losses
from depth_fusion_ros.cli.main import app
from depth_fusion_ros.cli.simulated_lens_bag import record_images
from depth_fusion_ros.ros.environment import (
    child_environment,
    ensure_ros_environment,
    free_domain_id,
    ros_problem,
)

if problem := ros_problem():
    pytest.skip(problem, allow_module_level=True)

pytestmark = [pytest.mark.ros, pytest.mark.alone]
COMMAND = [sys.executable, "-m", "depth_fusion_ros.cli.main"]


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    for name in ("ROS_DOMAIN_ID", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # given back afterwards
    number = free_domain_id()
    ensure_ros_environment(domain_id=number)
    return number


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_images(drawn_images(DrawnCamera()), tmp_path_factory.mktemp("bench") / "bag")


@contextmanager
def camera(bag: Path, domain: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, "bag", "play", str(bag), "--wait", "60", "--rate", "4", "--no-clock", *options],
        env=child_environment(domain_id=domain), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def arguments(folder: Path, *options: str) -> list[str]:
    return ["calibrate-lens", "--name", "cam", "--out", str(folder), "--report", str(folder),
            *options]


def parameters(folder: Path) -> dict[str, object]:
    content = yaml.safe_load((folder / "cam.yaml").read_text())
    return dict(content["/**"]["ros__parameters"])


def messages(bag: Path) -> Counter[tuple[str, int, bytes]]:
    """Topic, stamp and pixels of every message: serialised bytes may differ in their padding."""
    with BagReader(bag) as reader:
        return Counter((topic, stamp_ns(message), bytes(getattr(message, "data", b"")))
                       for topic, _, message in reader.messages())


def test_a_live_calibration_is_that_of_the_bag_and_can_be_repeated_from_its_own(
        bag: Path, domain: int, tmp_path: Path) -> None:
    live, played, again = (tmp_path / part for part in ("live", "played", "again"))
    with camera(bag, domain):
        done = CliRunner().invoke(app, arguments(live, "--live", "--wait-s", "60", "--idle-s", "4"))
    text = " ".join(done.output.split())
    assert done.exit_code == 0, text
    assert "none lost" in text and "enough; more distances" in text
    assert messages(live / "bags" / "cam") == messages(bag)
    for folder, source in ((played, bag), (again, live / "bags" / "cam")):
        repeated = CliRunner().invoke(app, arguments(folder, str(source)))
        assert repeated.exit_code == 0, repeated.output
        assert parameters(folder) == parameters(live)


def test_lost_messages_are_counted_by_topic_and_said() -> None:
    assert _losses(SimpleNamespace(lost={})) == "none lost"
    assert _losses(SimpleNamespace(lost={"/camera/lens_state": 3})) == (
        "LOST on the way: 3 of /camera/lens_state")


def test_topics_that_do_not_come_are_named_in_one_sentence(domain: int, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, arguments(tmp_path / "out", "--live", "--wait-s", "0.5"))
    text = " ".join(done.output.split())
    assert done.exit_code == 2, text
    for topic in ("lens_state", "sweep/image_raw", "sweep/camera_info", "dp/left/image_raw"):
        assert f"/camera/{topic} (nobody publishes it)" in text
    assert not (tmp_path / "out" / "cam.yaml").exists()
    assert not list((tmp_path / "out" / "bags").iterdir())


def test_a_folder_that_cannot_be_made_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = CliRunner().invoke(app, arguments(tmp_path / "taken", "--live", "--wait-s", "0.5"))
    text = " ".join(done.output.split())
    assert done.exit_code == 2 and "cannot be made" in text and "choose another --out" in text


def test_a_camera_whose_focus_nobody_reports_is_told_apart(bag: Path, domain: int, tmp_path: Path
                                                           ) -> None:
    topics = [option for topic in ("image_raw", "camera_info")
              for option in ("--topic", f"/camera/sweep/{topic}")]
    with camera(bag, domain, *topics):
        done = CliRunner().invoke(app, arguments(tmp_path, "--live", "--wait-s", "6"))
    text = " ".join(done.output.split())
    assert done.exit_code == 2 and "on /camera/lens_state (nobody publishes it):" in text, text


def _hear_ctrl_c() -> None:
    """What a shell starts in the background, perhaps these tests, ignores it; so do children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_was_recorded_and_says_so(bag: Path, domain: int, tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, *arguments(tmp_path, "--live", "--wait-s", "60")],
                               env=child_environment(domain_id=domain), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               preexec_fn=_hear_ctrl_c)
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    with camera(bag, domain) as player:
        data = tmp_path / "bags" / "cam" / "cam.mcap"
        deadline = time.monotonic() + 60
        while not (data.exists() and data.stat().st_size > 2_000_000):
            assert time.monotonic() < deadline and player.poll() is None, lines
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    reader.join(5)
    text = " ".join(" ".join(lines).split())
    # Where the signal came inside an exec(), `python -m` ends by it: 130 to a shell as well.
    assert code in (130, -signal.SIGINT) and "the recording is kept" in text, text
    with BagReader(tmp_path / "bags" / "cam") as kept:
        assert {t.name for t in kept.topics} >= {"/camera/lens_state", "/camera/sweep/image_raw"}
        assert kept.message_count > 20
    assert not (tmp_path / "cam.yaml").exists()
