#!/usr/bin/env bash
# Installs pyfau for development: torch for the CPU, and everything else from the lock.
set -euo pipefail
cd "$(dirname "$0")/.."

# OpenCV needs libGL and GLib; the pages are tested in Chromium, the live view on a virtual screen.
apt-get update -qq
apt-get install -qq -y --no-install-recommends \
  libgl1 libglib2.0-0 chromium chromium-driver xvfb xdotool

# The CPU build for Linux is not on PyPI. This is the line of PyTorch's own instructions.
python -m pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)"
python -m pip install --no-deps --require-hashes -r requirements/lock.txt
python -m pip install --no-deps --no-build-isolation -e .
