#!/usr/bin/env bash
# Build the C++ of det-ops and det-coco with the address and undefined-behaviour sanitizers (GCC or Clang on Linux), and
# run the tests of both packages with it; arguments are passed on to pytest. Ends with status 0 if nothing was found.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
for package in det-ops det-coco; do
  module=${package//-/_}
  cp -r "$root/packages/$package/src/$module" "$folder/$module"
  rm -f "$folder/$module"/_C.*.so
  cmake -S "$root/packages/$package" -B "$folder/build/$module" -DSKBUILD_PROJECT_NAME="$module" \
    -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" -DPython_EXECUTABLE="$(command -v python)" \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS="$flags"
  cmake --build "$folder/build/$module" --parallel "$(nproc)"
  cp "$folder/build/$module"/_C.*.so "$folder/$module/"
done

libraries="$(${CXX:-c++} -print-file-name=libasan.so):$(${CXX:-c++} -print-file-name=libubsan.so)"
options="log_path=$folder/report:print_stacktrace=1"  # pytest would swallow what a process says as it ends
cd "$root"
# Python frees at its end what it likes, so leaks say nothing. What compiles or exports tests no code of ours, and a
# browser does not start with them.
status=0
LD_PRELOAD="$libraries" ASAN_OPTIONS="$options:detect_leaks=0" UBSAN_OPTIONS="$options" OMP_NUM_THREADS=1 \
  PYTHONPATH="$folder:$root" python -m pytest -v -p no:cacheprovider -m "not slow" \
  -k "not compile and not export and not guide and not onnx and not npu and not executorch" \
  --ignore-glob '*page*.py' \
  "$@" packages/det-ops/tests packages/det-coco/tests || status=$?
cat "$folder"/report* 2> /dev/null || true
exit "$status"
