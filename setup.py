"""The pip door to the build of this package: CMake makes the messages, setuptools packs the rest.

    pip install .       a copy of everything, which needs the checkout no more
    pip install -e .    messages are built and installed, all else is used from the checkout

Both run the CMakeLists.txt that colcon runs, into build/stage, where ROS message generators are
found: in this environment (wheels) or on AMENT_PREFIX_PATH (a sourced distribution). Where there
are none, the pure Python part is installed and `import depth_fusion_ros.msg` says what is missing.
Everything that is not code is in pyproject.toml.

How sources and generated code become one package. A copy has both in one folder of site-packages.
For a checkout, the generated part lies in a folder of its own, and a .pth file puts two entries on
sys.path, in this order: the checkout, that folder. The package is found in the first, and its
__init__.py adds the second to its __path__. So our modules can only come from the checkout (there
is no copy that could be stale), depth_fusion_ros.msg and the type support modules only from the
build, and the shared libraries they load lie in the environment's lib/, where a copy has them too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel
from setuptools.dist import Distribution

NAME = "depth_fusion_ros"
CHECKOUT = Path(__file__).resolve().parent
STAGE = CHECKOUT / "build" / "stage"
GENERATED = "_depth_fusion_ros_generated"  # folder of site-packages; pip install -e only
SHARE = Path("share") / NAME

WITHOUT_ROS = """\
depth_fusion_ros was installed without its ROS messages: no ROS message generators were found.
Everything that needs no ROS works. For the nodes, install the generators, then this package again:
either source a ROS 2 distribution (Jazzy or newer), or take them from wheels, in the checkout:
    pip install -r requirements/ros.txt
    pip install ."""


def ros_prefixes() -> list[Path]:
    """Return the prefixes of ROS packages, or nothing where none has the message generators."""
    underlays = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    prefixes = list(dict.fromkeys([*underlays, Path(sys.prefix)]))
    generators = Path("share", "rosidl_default_generators", "cmake")
    return prefixes if any((prefix / generators).is_dir() for prefix in prefixes) else []


def cmake_environment(prefixes: list[Path]) -> dict[str, str]:
    """Return the environment CMake and the generators run in."""
    env = dict(os.environ)
    # pip's build isolation puts an empty environment first; the generators need the real one.
    env.pop("PYTHONPATH", None)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    underlays = [p for p in prefixes if p != Path(sys.prefix)]
    python_folders = [
        str(prefix / lib / folder)
        for prefix in underlays
        for lib in (Path("lib") / version, Path("local", "lib") / version)
        for folder in ("site-packages", "dist-packages")
        if (prefix / lib / folder).is_dir()
    ]
    if python_folders:
        env["PYTHONPATH"] = os.pathsep.join(python_folders)
    wheel_libraries = Path(sysconfig.get_path("purelib")).glob("ros_*.libs")
    library_folders = [*(str(prefix / "lib") for prefix in prefixes), *map(str, wheel_libraries)]
    inherited = env.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    env["LD_LIBRARY_PATH"] = os.pathsep.join(
        dict.fromkeys([*library_folders, *filter(None, inherited)])
    )
    env["AMENT_PREFIX_PATH"] = os.pathsep.join(map(str, prefixes))
    env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", "")])
    return env


def build_stage(prefixes: list[Path]) -> None:
    """Configure, build and install into STAGE; a build folder is kept for each environment."""
    env = cmake_environment(prefixes)
    cmake, ninja = (shutil.which(tool, path=env["PATH"]) for tool in ("cmake", "ninja"))
    if cmake is None:
        raise SystemExit("cmake is missing: pip install 'cmake>=3.20', or apt install cmake")
    environment = "\n".join([sys.prefix, sys.version, cmake, *map(str, prefixes)])
    build = CHECKOUT / "build" / f"cmake-{hashlib.sha256(environment.encode()).hexdigest()[:8]}"
    configure = [
        cmake,
        f"-S{CHECKOUT}",
        f"-B{build}",
        *(["-GNinja"] if ninja else []),
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        "-DDEPTH_FUSION_ROS_INSTALL_MODULES=OFF",
        f"-DCMAKE_INSTALL_PREFIX={STAGE}",
        f"-DCMAKE_PREFIX_PATH={';'.join(map(str, prefixes))}",
        f"-DPython3_EXECUTABLE={sys.executable}",
    ]
    shutil.rmtree(STAGE, ignore_errors=True)
    for command in (
        configure,
        [cmake, "--build", str(build), "--parallel"],
        [cmake, "--install", str(build)],
    ):
        subprocess.run(command, check=True, env=env)


def staged_package() -> Path:
    """Return the folder of the generated Python package in STAGE."""
    (init,) = STAGE.glob(f"**/{NAME}/__init__.py")
    return init.parent


class BuildPython(build_py):
    """Build the messages, then lay our modules and the generated ones together."""

    editable = False  # set by EditableWheel

    def run(self) -> None:
        """Fill build_lib."""
        build_lib = Path(self.build_lib)
        shutil.rmtree(build_lib, ignore_errors=True)  # it may hold modules deleted since
        prefixes = ros_prefixes()
        if prefixes:
            build_stage(prefixes)
            self.distribution.data_files = staged_data_files(self.editable)
        else:
            print(WITHOUT_ROS, file=sys.stderr)
            self.distribution.data_files = [] if self.editable else source_data_files()
        generated = build_lib / GENERATED / NAME if self.editable else build_lib / NAME
        if prefixes:
            shutil.copytree(
                staged_package(), generated, ignore=shutil.ignore_patterns("*.c", "__pycache__")
            )
        else:
            (generated / "msg").mkdir(parents=True)
            (generated / "__init__.py").touch()
            (generated / "msg" / "__init__.py").write_text(
                f'raise ModuleNotFoundError({WITHOUT_ROS!r}, name="{NAME}.msg")\n'
            )
        if self.editable:
            (build_lib / f"{NAME}_checkout.pth").write_text(f"{CHECKOUT}\n{GENERATED}\n")
        else:
            (generated / "__init__.py").unlink()  # an empty one, in the place of ours
            super().run()


class EditableWheel(editable_wheel):
    """The wheel of an editable install; setuptools' own leaves generated and data files out."""

    def run(self) -> None:
        """Build it as an ordinary wheel of an almost empty package."""
        self.reinitialize_command("build_py").editable = True
        self.reinitialize_command("bdist_wheel").dist_dir = self.dist_dir
        self.run_command("bdist_wheel")


# setuptools takes this command from distutils and has no module of its own for it.
install_data = Distribution().get_command_class("install_data")


class InstallData(install_data):
    """Take the data files as they are after the build: only then are the staged ones known."""

    def finalize_options(self) -> None:
        """Read the list late."""
        super().finalize_options()
        self.data_files = None

    def run(self) -> None:
        """Copy them, permissions included."""
        self.data_files = self.distribution.data_files or []
        super().run()


class PlatformDistribution(Distribution):
    """A distribution whose wheels hold libraries for one platform, where messages are built."""

    def has_ext_modules(self) -> bool:
        """Tell whether the wheel is bound to this platform and Python."""
        return bool(ros_prefixes())


def data_files(root: Path, folders: list[Path], patterns: list[str]) -> list[tuple[str, list[str]]]:
    """List the files under root's folders, grouped as setuptools wants them."""
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for pattern in patterns:
            for file in sorted((root / folder).glob(pattern)):
                if file.is_file() and "__pycache__" not in file.parts:
                    group = groups.setdefault(str(file.parent.relative_to(root)), [])
                    group.append(str(file.relative_to(CHECKOUT)))
    return list(groups.items())


def staged_data_files(editable: bool) -> list[tuple[str, list[str]]]:
    """List the stage's libraries, executables and share/."""
    files = data_files(STAGE, [Path("lib")], ["*.so"])
    files += data_files(STAGE, [Path("lib") / NAME], ["*"])
    in_checkout = (str(SHARE / "launch"), str(SHARE / "config")) if editable else ()
    return files + [
        (folder, names)
        for folder, names in data_files(STAGE, [Path("share")], ["**/*"])
        if not folder.startswith(in_checkout)
    ]


def source_data_files() -> list[tuple[str, list[str]]]:
    """List what share/ can have without ROS."""
    files = data_files(CHECKOUT, [Path("launch"), Path("config"), Path("msg")], ["**/*"])
    return [(str(SHARE / folder), names) for folder, names in files] + [
        (str(SHARE), ["package.xml"])
    ]


setup(
    distclass=PlatformDistribution,
    data_files=[
        ("share", [])
    ],  # a placeholder, so that install_data runs; BuildPython has the list
    cmdclass={
        "build_py": BuildPython,
        "editable_wheel": EditableWheel,
        "install_data": InstallData,
    },
)
