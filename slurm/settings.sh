# Sourced by submit.sh and job.sh: reads slurm/photoz.env, and checks what it says.
# shellcheck shell=bash

# The settings of photoz.env, except for words such as PHOTOZ_NAME=mine: these win.
load_settings() {
	local word name
	bash -n slurm/photoz.env || exit 2
	# The file is the site's: `module load`, a variable that is not set, or a test that is false must not end the job.
	set +eu +o pipefail
	set -a
	# shellcheck disable=SC1091
	source slurm/photoz.env
	set +a
	[[ -z ${SITE_TASKS:-} ]] || SITE_SHARD_TASKS=$SITE_TASKS SITE_INFER_TASKS=$SITE_TASKS # its older name
	for word in "$@"; do
		name=${word%%=*}
		case $name in
		SITE_SBATCH | SITE_GPU_SBATCH) read -ra "${name?}" <<<"${word#*=}" ;; # arrays; a variable holds their words
		*) export "${word?}" ;;
		esac
	done
	set -euo pipefail
	# Older files lack the newer settings.
	: "${SITE_SHARD_TASKS:=4}" "${SITE_INFER_TASKS:=4}" "${SITE_NODES:=1}" "${SITE_GPUS=1}" "${SITE_RANKS:=1}"
	: "${SITE_CORES_PER_GPU:=8}" "${SITE_MEMORY_PER_GPU:=32}" "${SITE_RESTARTS:=20}" "${SITE_RUNTIME:=none}"
	: "${SITE_ACCOUNT=}" "${SITE_PARTITION=}" "${SITE_GPU_PARTITION=}" "${SITE_VENV=$PWD/.venv}" "${SITE_IMAGE=}"
	: "${SITE_BIND=}"
	[[ -v SITE_SBATCH[@] ]] || SITE_SBATCH=()
	[[ -v SITE_GPU_SBATCH[@] ]] || SITE_GPU_SBATCH=()
	export PHOTOZ_STORE=${PHOTOZ_STORE:-photoz-store}
	[[ $PHOTOZ_STORE == /* || $PHOTOZ_STORE == *://* ]] || PHOTOZ_STORE=$PWD/$PHOTOZ_STORE
	check_settings
}

# Sets GPU_TYPE and GPU_COUNT, the two parts of SITE_GPUS.
check_settings() {
	local name
	for name in SITE_SHARD_TASKS SITE_INFER_TASKS SITE_NODES SITE_RANKS SITE_CORES_PER_GPU SITE_MEMORY_PER_GPU; do
		[[ ${!name} =~ ^[1-9][0-9]{0,5}$ ]] || refuse "$name" 'a whole number from 1 on'
	done
	[[ $SITE_RESTARTS =~ ^(0|[1-9][0-9]{0,5})$ ]] || refuse SITE_RESTARTS 'a whole number'
	GPU_TYPE='' GPU_COUNT=$SITE_GPUS
	case $SITE_GPUS in
	?*:*) GPU_TYPE=${SITE_GPUS%:*} GPU_COUNT=${SITE_GPUS##*:} ;;
	[A-Za-z]*) GPU_TYPE=$SITE_GPUS GPU_COUNT=1 ;;
	esac
	[[ ${GPU_TYPE:-none} =~ ^[A-Za-z0-9_.-]*[A-Za-z][A-Za-z0-9_.-]*$ && $GPU_COUNT =~ ^(0|[1-9][0-9]{0,2})$ ]] ||
		refuse SITE_GPUS 'a number of GPUs, or their type and number, such as 4 or a100:4'
	case $SITE_RUNTIME in
	none) ;;
	apptainer | pyxis | podman) [[ $SITE_IMAGE ]] || refuse SITE_IMAGE "an image for SITE_RUNTIME=$SITE_RUNTIME" ;;
	*) refuse SITE_RUNTIME 'apptainer, pyxis, podman or none' ;;
	esac
}

refuse() {
	echo "slurm/photoz.env (or your environment): $1=${!1}: expected $2" >&2
	exit 2
}
