# Sourced by submit.sh and job.sh: reads slurm/photoz.env, and checks what it says.
# shellcheck shell=bash

# The settings of photoz.env, except for words such as PHOTOZ_NAME=mine: these win.
load_settings() {
	local word name unknown=()
	bash -n slurm/photoz.env || exit 2
	check_quotes
	# The file is the site's: `module load`, a variable that is not set, or a test that is false must not end the job.
	set +eu +o pipefail
	set -a
	trap note_unknown ERR
	# shellcheck disable=SC1091
	source slurm/photoz.env
	trap - ERR
	set +a
	((${#unknown[@]} == 0)) || refuse_line "${unknown[0]}" 'is no setting, or ends too early'
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
	place_store "$PWD"
	check_settings
}

# Bash takes PHOTOZ_WHERE=zconf >= 2 as a setting for one command, and PHOTOZ_NAME=a&b as two commands: neither lasts.
# Stops where it would have to parse more than quotes and simple variables, such as at $(…) and at arrays.
check_quotes() {
	local line number=0 rest name='(PHOTOZ|SITE|AWS)_[A-Z0-9_]+|[A-Z]+_FLAGS'
	local double='"([^"\\$`]|\\.|\$[A-Za-z0-9_@*#?!-]|\$\{[^}"]*\})*"' single="'[^']*'"
	local plain='[^[:space:]"\\$`();&|<>'"'"']|\\.|\$[A-Za-z0-9_@*#?!-]|\$\{[^}"'"'"']*\}'
	local value="[+]?=($plain|$double|$single)*[[:space:]]*"
	# In PHOTOZ_COLUMNS=ra=RA, dec=DEC the last word is not meant as a variable of its own.
	local settings="^[[:space:]]*(export[[:space:]]+)?($name)$value(([A-Z][A-Z0-9_]*|[a-z]+_proxy)$value)*"
	while IFS= read -r line || [[ $line ]]; do
		number=$((number + 1))
		[[ ! $line =~ ^[[:space:]]*(export[[:space:]]+)?($name)[[:space:]]+= ]] || refuse_line "$number" 'sets nothing'
		[[ $line =~ $settings ]] || continue
		rest=${line:${#BASH_REMATCH[0]}}
		case $rest in
		'' | '#'* | ';'* | '&&'* | '||'* | \\) continue ;;
		[\"\'\`\(\$\\]*) [[ ${BASH_REMATCH[0]} == *[[:space:]] ]] || continue ;;
		esac
		refuse_line "$number" "sets ${BASH_REMATCH[2]}, but not to the whole rest of the line"
	done <slurm/photoz.env
}

# For the trap of errors: 127 is a command that is not found. Sites differ in where `module` is one, and a sourced file
# ends with the code of its last command.
note_unknown() {
	[[ $? != 127 || ${BASH_SOURCE[1]} != slurm/photoz.env || $BASH_COMMAND == @(module|ml|source|.)\ * ]] ||
		unknown+=("${BASH_LINENO[0]}")
}

# The value is not shown: it may be a secret.
refuse_line() {
	echo "slurm/photoz.env: line $1 $2: expected NAME=value without spaces around =," \
		"and quotes around a value with spaces or any of > < & | ; ( ), such as PHOTOZ_WHERE='zconf >= 2'" >&2
	exit 2
}

# The store's path as every host and container can use it; a relative one starts in the given folder.
place_store() {
	case ${PHOTOZ_STORE,,} in
	file:*)
		[[ $PHOTOZ_STORE =~ ^[Ff][Ii][Ll][Ee]://(/[^%?#]*)$ ]] ||
			refuse PHOTOZ_STORE "s3://bucket/prefix, a folder's path, or file:///folder without any of % ? #"
		PHOTOZ_STORE=${BASH_REMATCH[1]}
		;;
	\~ | \~/*) PHOTOZ_STORE=$HOME${PHOTOZ_STORE:1} ;;
	s3:*) ;;
	*) start_paths_in "$1" PHOTOZ_STORE ;;
	esac
}

# Variables that hold relative paths get the folder before them; URLs and ~ stay.
start_paths_in() {
	local name
	for name in "${@:2}"; do
		case ${!name:-} in
		'' | /* | \~* | *://*) ;;
		*) export "$name=$1/${!name}" ;;
		esac
	done
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
