"""What ROS 2 needs around a process: middleware, discovery, large-data profile, library paths.

    ensure_ros_environment()             # this process, before rclpy is imported
    subprocess.run(..., env=child_environment(domain_id=free_domain_id()))

A robot's sourced distribution is left as it is: only what the user has not set is set. With the
PyPI wheels (which bring no setup script) the Python environment's prefix is added to
AMENT_PREFIX_PATH and its library folders to LD_LIBRARY_PATH. Imports no rclpy.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import random
import socket
import sys
import sysconfig
from collections import deque
from collections.abc import Mapping, MutableMapping
from pathlib import Path

PACKAGE_NAME = "depth_fusion_ros"
DDS_PROFILE = "config/dds/fastdds_large_data.xml"
_REEXEC_GUARD = "_DEPTH_FUSION_ROS_ENVIRONMENT_READY"
_HIGHEST_SAFE_DOMAIN = 101  # above, UDP ports reach Linux's ephemeral range
_claims: deque[socket.socket] = deque(maxlen=8)
"""Domains this process was given last; an older one is in use by now, or was given up."""


def child_environment(
    base: Mapping[str, str] | None = None, *, domain_id: int | None = None
) -> dict[str, str]:
    """Return an environment in which a child process finds ROS, our messages and our DDS profile.

    Args:
        base: environment to start from; default this process's.
        domain_id: sets ROS_DOMAIN_ID; None keeps the one in `base`.

    What `base` already sets of RMW_IMPLEMENTATION, ROS_AUTOMATIC_DISCOVERY_RANGE and
    FASTDDS_DEFAULT_PROFILES_FILE (or the older FASTRTPS_DEFAULT_PROFILES_FILE) is kept.
    """
    environment = dict(os.environ if base is None else base)
    if domain_id is not None:
        environment["ROS_DOMAIN_ID"] = str(domain_id)
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment.setdefault("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    set_dds_profile(environment)
    if uses_wheels():
        _prepend(environment, "AMENT_PREFIX_PATH", sys.prefix)
        for folder in wheel_library_folders():
            _prepend(environment, "LD_LIBRARY_PATH", str(folder))
    return environment


def ensure_ros_environment(*, domain_id: int | None = None) -> None:
    """Give this process the environment of `child_environment`; call before importing rclpy.

    The dynamic linker reads LD_LIBRARY_PATH only at process start: if it lacked the wheels'
    folders the interpreter is executed once more with the same arguments (guarded, at most once).
    """
    environment = child_environment(domain_id=domain_id)
    missing_library_path = environment.get("LD_LIBRARY_PATH") != os.environ.get("LD_LIBRARY_PATH")
    os.environ.update(environment)
    done_before = os.environ.get(_REEXEC_GUARD) == sys.prefix
    if missing_library_path and not done_before and "rclpy" not in sys.modules:
        os.environ[_REEXEC_GUARD] = sys.prefix
        os.execv(sys.executable, sys.orig_argv)


def set_dds_profile(environment: MutableMapping[str, str]) -> None:
    """Name the shipped Fast DDS profile, unless the user chose a transport or another middleware.

    Only the sender's profile decides what arrives on one computer, so a node that does this for
    itself is heard by Nav2 and RViz as these come.
    """
    is_fastdds = environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps").startswith("rmw_fastrtps")
    chosen = user_dds_profile(environment) or environment.get("FASTDDS_BUILTIN_TRANSPORTS")
    if is_fastdds and not chosen:
        environment["FASTDDS_DEFAULT_PROFILES_FILE"] = str(share_file(DDS_PROFILE))


def ros_problem() -> str | None:
    """Return why rclpy and our messages cannot be used here, with the remedy; None if they can."""
    if importlib.util.find_spec("rclpy") is None:
        return (
            "rclpy is not installed: source a ROS 2 distribution, or run 'make env' (or pip "
            "install 'ros-rclpy[fastrtps]' ros-common-interfaces) in this environment"
        )
    try:
        importlib.import_module(f"{PACKAGE_NAME}.msg")  # an install without ROS has a stub of it
    except ImportError:
        return (
            f"the messages of {PACKAGE_NAME} are not built: run 'pip install .' with the ROS "
            "generators installed, or 'colcon build', and source the result"
        )
    return None


def uses_wheels() -> bool:
    """True if rclpy comes from this Python environment and not from a sourced distribution."""
    found = importlib.util.find_spec("rclpy")
    if found is None or found.origin is None:
        return False
    return Path(found.origin).is_relative_to(Path(sys.prefix))


def wheel_library_folders() -> list[Path]:
    """Return where the wheels of this environment keep their shared libraries."""
    bundled = sorted(Path(sysconfig.get_path("purelib")).glob("ros_*.libs"))
    return [Path(sys.prefix) / "lib", *bundled]


def user_dds_profile(environment: Mapping[str, str] | None = None) -> str:
    """Return the Fast DDS profile file that is set, '' if none."""
    values = os.environ if environment is None else environment
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    return next((values[name] for name in names if values.get(name)), "")


def share_file(relative_path: str) -> Path:
    """Return a file of our config/, launch/ or msg/ in the checkout or an installed share folder.

    Raises:
        FileNotFoundError: it is in none of them; the text lists the folders looked at.
    """
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    roots = [Path(__file__).resolve().parents[2]]
    roots += [Path(p) / "share" / PACKAGE_NAME for p in [*prefixes, sys.prefix]]
    for root in roots:
        if (root / relative_path).is_file():
            return root / relative_path
    raise FileNotFoundError(
        f"{relative_path} not found in {', '.join(map(str, roots))}: install the package or run "
        "from its checkout"
    )


def free_domain_id(seed: int | None = None) -> int:
    """Return a ROS domain (1..101) that nobody uses on this host as far as can be seen.

    Looked at are the UDP discovery port of the domain and Fast DDS's shared-memory ports. Between
    this answer and the first participant seconds may pass, so the domain is claimed as well (an
    abstract Unix socket, Linux): another process that asks meanwhile gets another one.

    Raises:
        RuntimeError: every domain is taken.
    """
    domains = list(range(1, _HIGHEST_SAFE_DOMAIN + 1))
    random.Random(seed).shuffle(domains)
    for domain in domains:
        if _domain_is_free(domain) and _claim(domain):
            return domain
    raise RuntimeError(
        f"ROS domains 1 to {_HIGHEST_SAFE_DOMAIN} are all in use on this host: set ROS_DOMAIN_ID, "
        "or remove stale files /dev/shm/fastrtps_*"
    )


def _claim(domain: int) -> bool:
    """False if this or another process was given the domain a moment ago.

    Where such a socket cannot be made (no Linux, a sandbox) nothing is claimed and the answer True.
    """
    try:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return True
    try:
        claim.bind(f"\0{PACKAGE_NAME}_domain_{domain}")
    except OSError as error:
        claim.close()
        return error.errno != errno.EADDRINUSE
    if len(_claims) == _claims.maxlen:
        _claims.popleft().close()
    _claims.append(claim)
    return True


def _domain_is_free(domain: int) -> bool:
    """True if neither shared memory nor UDP shows a participant of the domain."""
    first_port = 7400 + 250 * domain  # RTPS: discovery multicast port, then 10, 11 + 2·participant
    shared_memory = Path("/dev/shm")
    ports = (first_port, first_port + 10, first_port + 11)
    if any((shared_memory / f"fastrtps_port{port}").exists() for port in ports):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", first_port + 10))
        except OSError:
            return False
    return True


def _prepend(environment: dict[str, str], name: str, entry: str) -> None:
    """Put a path entry first unless the variable has it already."""
    entries = [e for e in environment.get(name, "").split(os.pathsep) if e]
    if entry not in entries:
        environment[name] = os.pathsep.join([entry, *entries])
