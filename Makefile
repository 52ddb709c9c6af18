# make test    lint and tests          make demo    everything at once, without hardware
# make lint    lint only               make train   train the dual-pixel network
# make env     only prepare .venv      make clean   remove what was built; make distclean: .venv too
#
# Each makes what it needs: .venv, third-party packages, ROS messages. A second call does nothing of
# that again unless requirements/ or msg/ changed. Python sources run from this checkout as they are.
#
# PYTHON=python3.12 make …  picks the interpreter .venv is made with (3.10 or newer).
# PYTEST_ARGS='-k bags -x'  goes to pytest.   WORKERS=4  test processes beside each other.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= $(shell n=$$(nproc); echo $$(( n < 8 ? n : 8 )))
VENV := $(CURDIR)/.venv
BIN := .venv/bin
STAMPS := .venv/stamps
SHARE := .venv/share/depth_fusion_ros

# ROS 2 comes from wheels in .venv, talks on this machine only, and a distribution that was sourced
# in the calling shell stays out: its libraries and ours do not mix.
export AMENT_PREFIX_PATH := $(VENV)
export RMW_IMPLEMENTATION := rmw_fastrtps_cpp
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export FASTDDS_DEFAULT_PROFILES_FILE := $(CURDIR)/config/dds/fastdds_large_data.xml
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME CMAKE_PREFIX_PATH VIRTUAL_ENV _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH ROS_DISTRO
endif

.PHONY: help env lint test demo train clean distclean FORCE

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

env: $(STAMPS)/messages

lint: env
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# Real traffic waits more than it works, so two test processes share it, each test in a ROS domain of
# its own; where a clock decides, the test has the machine to itself. All else runs on all cores.
test: lint
ifeq ($(strip $(PYTEST_ARGS)),)
	$(BIN)/python -m pytest -m "not ros or offline" -n $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest -m "ros and not offline and not alone" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m "alone"
else
	$(BIN)/python -m pytest $(PYTEST_ARGS)
endif

demo: env
	$(BIN)/depth-fusion demo

train: env
	$(BIN)/depth-fusion train --config config/train/difuse_net_s.yaml

clean:
	rm -rf build install log dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv

# Third-party packages. torch goes first and alone: the version that is there satisfies the rest.
$(STAMPS)/packages: requirements/torch.txt requirements/runtime.txt requirements/ros.txt requirements/dev.txt
	@scripts/check_machine $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet -r requirements/runtime.txt -r requirements/ros.txt -r requirements/dev.txt
	@mkdir -p $(@D) && touch $@

# ROS messages: built and installed into .venv; all else is used from the checkout (see setup.py).
# share/ has links in place of copies of launch/ and config/, which are in the checkout too.
$(STAMPS)/messages: $(STAMPS)/packages $(STAMPS)/nodes $(wildcard msg/*.msg) CMakeLists.txt package.xml setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -c 'import depth_fusion_ros.msg'
	ln -sfnT $(CURDIR)/launch $(SHARE)/launch
	ln -sfnT $(CURDIR)/config $(SHARE)/config
	@touch $@

# The names of the nodes, rewritten only when they change: each has an executable in .venv/lib.
$(STAMPS)/nodes: FORCE | $(STAMPS)/packages
	@echo $(sort $(wildcard depth_fusion_ros/nodes/*.py)) | cmp -s - $@ \
	  || echo $(sort $(wildcard depth_fusion_ros/nodes/*.py)) > $@
