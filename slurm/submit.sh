#!/usr/bin/env bash
# Submit the five jobs, each to start when the one before it is done, and print their ids.
#   slurm/submit.sh             with the settings of slurm/photoz.env
#   slurm/submit.sh --dry-run   print the sbatch commands
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck disable=SC1091
source slurm/photoz.env
: "${PHOTOZ_STORE:?set it in slurm/photoz.env}"

JOBS=(catalog shard train infer evaluate)

case ${1:-} in
'' | --dry-run) ;;
*) echo "usage: slurm/submit.sh [--dry-run]" >&2 && exit 2 ;;
esac

# Options of sbatch for a job, one a line; they win over the script's #SBATCH lines.
options_for() {
	local partition=$SITE_PARTITION
	case $1 in train | infer) partition=${SITE_GPU_PARTITION:-$SITE_PARTITION} ;; esac
	[[ -z $SITE_ACCOUNT ]] || echo "--account=$SITE_ACCOUNT"
	[[ -z $partition ]] || echo "--partition=$partition"
	case $1 in
	shard) echo "--array=0-$((SITE_TASKS - 1))" ;;
	train) printf '%s\n' "--nodes=$SITE_NODES" "--gpus-per-node=$SITE_GPUS" ;;
	infer) printf '%s\n' "--array=0-$((SITE_TASKS - 1))" "--gpus-per-node=$((SITE_GPUS > 0))" ;;
	esac
}

submitted=()
# Half a chain is of no use.
trap '((${#submitted[@]} == 0)) || scancel "${submitted[@]}"' ERR

before=
for job in "${JOBS[@]}"; do
	mapfile -t options < <(options_for "$job")
	# If a job fails for good, those after it are cancelled instead of waiting for ever.
	[[ -z $before ]] || options+=("--dependency=afterok:$before" --kill-on-invalid-dep=yes)
	if [[ ${1:-} == --dry-run ]]; then
		echo sbatch "${options[@]}" "slurm/$job.sh"
		before="<$job>"
	else
		before=$(sbatch --parsable "${options[@]}" "slurm/$job.sh")
		before=${before%%;*}
		submitted+=("$before")
		echo "$job $before"
	fi
done
