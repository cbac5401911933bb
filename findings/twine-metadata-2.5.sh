#!/bin/sh
# hatchling 1.33.0, packaging 26.4, twine 6.2.0 and 7.0.0
#
# A wheel that hatchling builds today has metadata of version 2.5. `twine check` of 6.2.0 ends with "Invalid distribution metadata:
# '2.5' is not a valid metadata version", and an upload would too; 7.0.0 passes the same wheel.
#
# Why a good guess is wrong: the message comes from `packaging`, and 26.4 knows 2.5 and 2.6. But twine 6.2.0 replaces the list in
# `packaging` by its own, which ends with 2.4, so no newer `packaging` helps.
#
# Who meets it: everybody whose workflow pins twine, or an action that brings it, while the build requirement `hatchling` floats.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/package/example"
touch "$folder/package/example/__init__.py"
cat > "$folder/package/pyproject.toml" <<'TOML'
[build-system]
requires = ["hatchling==1.33.0"]
build-backend = "hatchling.build"

[project]
name = "example"
version = "1.0"
TOML
for version in 6.2.0 7.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check twine==$version packaging==26.4
done
"$folder/7.0.0/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder/dist" "$folder/package"
wheel=$(echo "$folder"/dist/example-*.whl)
python3 -c "
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
name = next(name for name in wheel.namelist() if name.endswith('METADATA'))
print(wheel.read(name).decode().splitlines()[0])" "$wheel"
refused=0 passed=0
for version in 6.2.0 7.0.0; do
    echo "twine $version:"
    "$folder/$version/bin/python" -c "
import twine.package
from packaging import metadata
print('versions that pass:', *metadata._VALID_METADATA_VERSIONS)"
    if "$folder/$version/bin/twine" check "$wheel"; then passed=$version; else refused=$version; fi
done
[ "$refused" = 6.2.0 ] && [ "$passed" = 7.0.0 ]
