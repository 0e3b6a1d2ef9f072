#!/bin/sh
# Create .venv from the lock files, or do nothing when it is complete and up to date.
#
#   PYTHON=python3.12   the interpreter to use (default: the first of python3, python3.13, 3.12, 3.11 that is 3.11 to 3.13)
#   TORCH=auto          the CPU build of torch where pip is offered one (find-links, an index), else the build that the index has
#   TORCH=cpu           the CPU build, or stop
#   TORCH=cuda          the index's default build with its CUDA libraries, for a machine with an NVIDIA GPU
#   VENV=.venv          the folder
#
# docs/install.md explains the choice. Everything but torch comes from requirements/*.txt without resolving anything,
# so nothing that is not written there can be pulled in.
set -eu
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
torch=${TORCH:-auto}
stamp=$venv/danlu-installed
log=$venv/install.log
pin=$(grep '^torch==' requirements/torch.txt)

fail() {
    printf 'cannot set up %s: %s\n  why: %s\n  fix: %s\n' "$venv" "$1" "$2" "$3" >&2
    exit 1
}

say() { printf 'setting up %s: %s\n' "$venv" "$1"; }

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        if is_supported "$PYTHON"; then command -v "$PYTHON"; fi
        return 0
    fi
    for candidate in python3 python3.13 python3.12 python3.11; do
        if is_supported "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
}

# pip_install WHAT ARGUMENTS...: quiet; the log keeps everything.
pip_install() {
    what=$1
    shift
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >>"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "pip could not install $what" "pip's own words are above; the whole log is $log" \
            "check the network and pip's index settings (pip config list), then run the same command again"
    fi
}

case $torch in
auto | cpu | cuda) ;;
*) fail "TORCH=$torch is not known" "it chooses the build of torch" "use TORCH=auto, TORCH=cpu or TORCH=cuda" ;;
esac

# What is installed is decided by these; a finished environment remembers them.
wanted="$torch $(cat requirements/torch.txt requirements/runtime.txt requirements/dev.txt pyproject.toml | cksum) at $(pwd)"
if [ -f "$stamp" ]; then
    have=$(cat "$stamp")
    # A plain `make` keeps the build of torch that was asked for before.
    if [ "$have" = "$wanted" ] || { [ -z "${TORCH:-}" ] && [ "${have#* }" = "${wanted#* }" ]; }; then exit 0; fi
    if [ -z "${TORCH:-}" ]; then
        torch=${have%% *}
        wanted="$torch ${wanted#* }"
    fi
fi

python=$(find_python)
if [ -z "$python" ]; then
    fail "no Python 3.11, 3.12 or 3.13 found${PYTHON:+ (PYTHON=$PYTHON)}" "Danlu needs one of these" \
        "install one, or name it: make PYTHON=/path/to/python3.12"
fi

# Scripts inside an environment name its folder: one that was moved has to be made again.
if [ -n "${have:-}" ] && [ "${have##* at }" != "$(pwd)" ]; then rm -rf "$venv"; fi
# From here to the stamp an interruption leaves an environment that does not count as complete.
rm -f "$stamp"
if ! is_supported "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "creating the environment with $python"
    if ! "$python" -m venv --clear "$venv"; then
        fail "python's venv module does not work" "some systems ship it apart from Python" "install it (Debian, Ubuntu: apt install python3-venv)"
    fi
fi
: >"$log"

version=${pin#torch==}
case $torch in
auto | cpu)
    say "installing torch $version (the CPU build, if pip is offered one)"
    if "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps "$pin+cpu" >>"$log" 2>&1; then
        build=cpu
    elif ! grep -q "No matching distribution found for torch" "$log"; then
        tail -n 15 "$log" >&2
        fail "pip could not install torch" "pip's own words are above; the whole log is $log" \
            "check the network and pip's index settings (pip config list), then run the same command again"
    elif [ "$torch" = cpu ]; then
        fail "pip is not offered a CPU build of torch $version" "neither its index nor its find-links folders have one for this Python" \
            "add PyTorch's CPU index to pip's settings as docs/install.md shows, or use TORCH=auto"
    else
        say "no CPU build is offered; installing the default build (on Linux it brings CUDA libraries: some GB)"
        pip_install torch "$pin"
        build=default
    fi
    ;;
cuda)
    say "installing torch $version with its CUDA libraries (some GB)"
    # === leaves out versions with a local part, such as +cpu.
    pip_install torch "torch===$version"
    build=cuda
    ;;
esac

say "installing $(cat requirements/runtime.txt requirements/dev.txt | grep -c ==) pinned packages"
pip_install "the pinned packages" --no-deps -r requirements/runtime.txt -r requirements/dev.txt
pip_install danlu --no-deps --no-build-isolation --editable .
if ! "$venv/bin/python" -c 'import danlu, torch' >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    fail "torch does not load" "the installed build does not fit this machine" "remove $venv and try another build: TORCH=cpu or TORCH=cuda (docs/install.md)"
fi
printf '%s' "$wanted" >"$stamp.tmp"
mv "$stamp.tmp" "$stamp"
say "done ($build build of torch, log in $log)"
