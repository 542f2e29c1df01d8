#!/usr/bin/env bash
# Writes the four lock files again: what `pip install` would take today, each but that for cu126 with its hashes.
#   pip install uv && containers/lock.sh
# One lock for the lowest Python that photoz promises serves every later 3.11, too.
set -euo pipefail
cd "$(dirname "$0")/.."

# SHA-256 of torch's wheel without CUDA, of https://download.pytorch.org/whl/cpu/torch/ (cp311, x86_64).
CPU_WHEEL=6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

torch=$(sed -n 's/^torch==//p' constraints.txt)
all=$(mktemp)
trap 'rm -f "$all"' EXIT
UV_FIND_LINKS='' uv pip compile pyproject.toml --extra vision --constraint constraints.txt "$@" --generate-hashes \
	--python-version 3.11.0 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --quiet -o "$all"

# A requirement is one line with its hashes on indented lines below it.
pick() { awk -v wanted="$1" '/^[a-z]/ { cuda = /^(torch|torchvision|triton|nvidia-|cuda-)/ } cuda == wanted' "$all"; }

cd containers
{ echo '# Everything but torch; written by containers/lock.sh.'; pick 0; } > common.lock
{ echo "# torch with CUDA, and torchvision; written by containers/lock.sh."; pick 1; } > torch-cuda.lock
printf '# torch without CUDA; written by containers/lock.sh.\ntorch==%s+cpu \\\n    --hash=sha256:%s\n' \
	"$torch" "$CPU_WHEEL" > torch-cpu.lock
# download.pytorch.org gives no hashes that pip could check beforehand without fetching some gigabytes.
{
	echo '# torch with CUDA 12.6, and torchvision, of download.pytorch.org; written by containers/lock.sh.'
	sed -nE 's/^(torch|torchvision)==([0-9.]+) .*/\1==\2+cu126/p' torch-cuda.lock
} > torch-cu126.lock
