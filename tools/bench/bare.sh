#!/usr/bin/env bash
# Measures with the PyTorch that is there, on a machine where nothing can be installed:
#     [PYTHON=python3] [DET_COMMIT=...] tools/bench/bare.sh train_step --device cuda --json FILE
# It needs CMake, a C++ compiler and pybind11, unless the extension lies in the sources, built for this Python. Other
# packages that are missing may lie in wheels/ as wheels:
#     pip download --no-deps --only-binary :all: --python-version 3.12 -d wheels \
#         cattrs docstring-parser platformdirs pycocotools tyro typeguard
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
site=$root/build/bare

mkdir -p "$site"
cp -r "$root"/packages/*/src/* "$site"
for wheel in "$root"/wheels/*.whl; do
  [ ! -e "$wheel" ] || $python -m zipfile -e "$wheel" "$site"
done
PYTHONPATH=$site $python -c 'import det_ops._C' 2> /dev/null || {
  cmake -S "$root/packages/det-ops" -B "$site.build" -DSKBUILD_PROJECT_NAME=det_ops -DCMAKE_BUILD_TYPE=Release \
    -DPython_EXECUTABLE="$($python -c 'import sys; print(sys.executable)')" \
    -Dpybind11_DIR="$($python -c 'import pybind11; print(pybind11.get_cmake_dir())')"
  cmake --build "$site.build" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
  cmake --install "$site.build" --prefix "$site"
} >&2

PYTHONPATH=$site:$root${PYTHONPATH:+:$PYTHONPATH} exec $python "$root/tools/bench" "$@"
