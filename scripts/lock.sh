#!/bin/sh
# Write requirements/runtime.txt and requirements/dev.txt from pyproject.toml: pinned, one file for Python 3.11 to 3.13.
#
# The CUDA libraries that torch's Linux wheel asks for are left out, so that a CPU install stays small;
# scripts/install.sh lets torch bring its own, exactly pinned ones where a GPU is to be used.
#
#   scripts/lock.sh             keep the versions that are locked, add and remove what pyproject.toml says
#   scripts/lock.sh --upgrade   take the newest versions
set -eu
cd "$(dirname "$0")/.."

uv=$(mktemp -d)
trap 'rm -rf "$uv"' EXIT
"${PYTHON:-python3}" -m venv "$uv"
"$uv/bin/python" -m pip install --quiet "uv>=0.8"

# --no-config and a clean environment: no index address or folder of this machine may enter the files.
compile() {
    output=$1
    shift
    env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
        "$uv/bin/uv" pip compile --quiet --no-config --no-header --universal --fork-strategy fewest --python-version 3.11 \
        --annotation-style line --constraints requirements/torch.txt --output-file "$output" "$@"
}

without_cuda() {
    {
        echo "# Written by scripts/lock.sh (make lock). Do not edit."
        grep -vE '^(#|nvidia-|cuda-|triton)' "$1"
    } >"$2"
}

for name in runtime dev; do
    # Starting from the present file keeps what is locked.
    if [ -f "requirements/$name.txt" ]; then cp "requirements/$name.txt" "$uv/$name.txt"; fi
done
compile "$uv/runtime.txt" --extra all "$@" pyproject.toml
without_cuda "$uv/runtime.txt" requirements/runtime.txt
# The tools must agree with the runtime where both need a package.
compile "$uv/dev.txt" --group dev --constraints requirements/runtime.txt "$@"
without_cuda "$uv/dev.txt" requirements/dev.txt
echo "requirements/runtime.txt: $(grep -c == requirements/runtime.txt) packages, requirements/dev.txt: $(grep -c == requirements/dev.txt) packages"
