#!/usr/bin/env bash
# Writes the hash of the settings into the ConfigMap's name, here and where pods refer to it. Run it after every edit of
# 10-settings.yaml; it needs kubectl, but no cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

name=$(kubectl kustomize . | sed -n 's/^  name: \(photoz-settings-[a-z0-9]*\)$/\1/p')
[[ $name ]] || { echo "rename-settings.sh: kubectl kustomize k8s/ shows no ConfigMap photoz-settings-…" >&2; exit 1; }
sed -i "s/photoz-settings-[A-Za-z0-9]*/$name/" ./*.yaml components/shell/shell.yaml
echo "the settings are $name"
