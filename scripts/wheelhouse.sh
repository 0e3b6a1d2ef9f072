#!/bin/sh
# Danlu on a machine without a network: collect every wheel where there is one, install from the folder where there is none.
#
#   scripts/wheelhouse.sh collect FOLDER          in a clone, on a machine like the other one (same system, same Python)
#   scripts/wheelhouse.sh install FOLDER [VENV]   on the other one; VENV is danlu-venv by default
#
#   PYTHON=python3.12   the interpreter to use (python3 by default); 3.11 to 3.13
#   TORCH=cpu           the CPU build of torch (default), or cuda: torch with its CUDA libraries
#
# The versions are those of requirements/*.txt. `install` asks no index, and installs nothing whose checksum is not that of the folder's
# SHA256SUMS. The folder holds this script too.
set -eu

fail() {
    printf 'wheelhouse: %s\n  why: %s\n  fix: %s\n' "$1" "$2" "$3" >&2
    exit "${4:-1}"
}

usage() {
    fail "$1" "it takes: collect FOLDER, or install FOLDER [VENV]" "scripts/wheelhouse.sh collect wheelhouse" 2
}

[ $# -ge 2 ] || usage "too few words"
action=$1
folder=$2
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null ||
    fail "$python is no Python 3.11, 3.12 or 3.13" "Danlu runs on these" "name one: PYTHON=/path/to/python3.12"
tag=$("$python" -c 'import sys, sysconfig; print(f"python {sys.version_info[0]}.{sys.version_info[1]} {sysconfig.get_platform()}")')

sums() { (cd "$folder" && "$python" -c '
import hashlib, pathlib, sys
for path in sorted(pathlib.Path(".").glob("*.whl")):
    print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
'); }

case $action in
collect)
    [ $# -eq 2 ] || usage "too many words"
    [ ! -e "$folder" ] || fail "$folder exists" "what else lies in it would be installed too" "name a new folder"
    torch=${TORCH:-cpu}
    case $torch in cpu | cuda) ;; *) fail "TORCH=$torch is not known" "it chooses the build of torch" "use TORCH=cpu or TORCH=cuda" 2 ;; esac
    root=$(cd "$(dirname "$0")/.." && pwd)
    [ -f "$root/requirements/runtime.txt" ] || fail "no lock files beside this script" "wheels are collected in a clone" "run it from the clone's scripts folder"
    pin=$(sed -n 's/^torch==//p' "$root/requirements/torch.txt")
    partial=$folder.partial
    rm -rf "$partial"
    mkdir -p "$partial"
    if [ "$torch" = cpu ]; then
        "$python" -m pip download --quiet --only-binary :all: --no-deps --dest "$partial" "torch==$pin+cpu" ||
            fail "pip is not offered a CPU build of torch $pin" "its indexes have none" "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, or TORCH=cuda"
    else
        "$python" -m pip download --quiet --only-binary :all: --dest "$partial" "torch===$pin"
    fi
    grep -v '^torch==' "$root/requirements/runtime.txt" >"$partial/requirements.txt"
    "$python" -m pip download --quiet --only-binary :all: --no-deps --dest "$partial" --requirement "$partial/requirements.txt"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$partial" "$root"
    rm "$partial/requirements.txt"
    cp "$0" "$partial/wheelhouse.sh"
    printf '%s\n' "$tag" >"$partial/MADE-FOR"
    folder=$partial
    sums >"$partial/SHA256SUMS.tmp"
    mv "$partial/SHA256SUMS.tmp" "$partial/SHA256SUMS"
    mv "$partial" "$2"
    echo "$(grep -c . "$2/SHA256SUMS") wheels in $2; on the other machine: sh $(basename "$2")/wheelhouse.sh install $(basename "$2")"
    ;;
install)
    [ $# -le 3 ] || usage "too many words"
    venv=${3:-danlu-venv}
    [ -f "$folder/SHA256SUMS" ] || fail "$folder is no wheelhouse" "it has no SHA256SUMS" "make one: scripts/wheelhouse.sh collect $folder"
    made_for=$(cat "$folder/MADE-FOR")
    [ "$made_for" = "$tag" ] || fail "$folder was made for $made_for" "this is $tag" "collect it with the same Python on the same kind of machine, or set PYTHON="
    [ "$(sums)" = "$(cat "$folder/SHA256SUMS")" ] ||
        fail "the wheels in $folder are not those that were collected" "their checksums differ from SHA256SUMS: one is cut, changed, missing, or was added" "copy the folder again"
    "$python" -m venv "$venv"
    PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-input --no-deps "$folder"/*.whl
    "$venv/bin/python" -c 'import danlu; print("danlu", danlu.__version__)'
    echo "try it: $venv/bin/danlu doctor"
    ;;
*) usage "$action is not known" ;;
esac
