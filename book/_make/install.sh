#!/usr/bin/env bash
# install.sh VENV PYTHON PROJECT REQUIREMENTS: make VENV with uv in it and install PROJECT, all in one resolve.
set -euo pipefail
venv=$1 python=$2 project=$3 requirements=$4

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "This project needs Python 3.11 or newer; \"$python\" is $("$python" --version 2>&1). Try: make PYTHON=python3.12 ..." >&2
    exit 1
}
# Anew where there is none, where making one broke off, and where it belongs to an older Python.
"$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || "$python" -m venv --clear "$venv"
[ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv

install() {
    # constraints.txt only limits versions; any other file lists packages to install as well.
    local flag=--requirements
    [ "$(basename "$requirements")" = constraints.txt ] && flag=--constraints
    # Compiled once, as pip does: where Python may not write beside its packages, each kernel would compile torch anew.
    VIRTUAL_ENV="$venv" "$venv/bin/uv" pip install --quiet --compile-bytecode --editable "$project" "$flag" "$requirements"
}

echo "Installing into $venv: a minute or two the first time."
if command -v nvidia-smi > /dev/null 2>&1; then
    install
# Without a GPU PyTorch's CPU builds do, and are a fifth of the size. One attempt, for there may be no way to them.
elif ! UV_TORCH_BACKEND=cpu UV_HTTP_RETRIES=0 install 2> "$venv/cpu-builds.log"; then
    if ! grep -qiE 'fetch|request|connect|dns|timed out' "$venv/cpu-builds.log"; then
        cat "$venv/cpu-builds.log" >&2
        exit 1
    fi
    echo "PyTorch's own CPU builds cannot be reached from here: installing the usual builds, which run on a CPU too."
    install
fi
