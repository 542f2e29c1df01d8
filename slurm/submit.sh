#!/usr/bin/env bash
# Submit the five jobs, each to start when the one before it is done, and print their ids.
#   slurm/submit.sh                    with the settings of slurm/photoz.env
#   PHOTOZ_NAME=deep slurm/submit.sh   what your environment sets wins: PHOTOZ_…, SITE_…, AWS_…
#   slurm/submit.sh --dry-run          print the sbatch commands
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/.."
source slurm/settings.sh
# A path of the caller's is meant from where the caller is.
[[ ! ${PHOTOZ_STORE:-} ]] || place_store "$caller"
start_paths_in "$caller" PHOTOZ_TABLE PHOTOZ_IMAGES_FROM PHOTOZ_MOC PHOTOZ_CACHE PHOTOZ_CHECKPOINTS \
	AWS_SHARED_CREDENTIALS_FILE AWS_CONFIG_FILE SITE_VENV

JOBS=(catalog shard train infer evaluate)

case ${1:-} in
'' | --dry-run) ;;
*) echo "usage: slurm/submit.sh [--dry-run]" >&2 && exit 2 ;;
esac

# Settings of the caller's environment go to the jobs as words. Slurm keeps these, so no secret may be among them.
given=() kept_back=
secret_name='[^=&;]*(token|secret|passw|passphrase|cred|signature|(api|access|private)[-_]?key)[^=&;]*'
in_query="://[^?#]*[?#](.*[&;])?($secret_name|([^=&;]*[-_])?sig|key|auth|pwd)=."
for name in $(compgen -e); do
	case $name in PHOTOZ_* | SITE_* | AWS_*) ;; *) continue ;; esac
	case $name in
	AWS_ACCESS_KEY_ID | AWS_*SECRET* | AWS_*TOKEN | *PASSWORD*) kept_back+=" $name" ;;
	*)
		secret=
		[[ ! ${!name} =~ ://[^/]*@ ]] || secret='a login'
		[[ ! ${!name,,} =~ $in_query ]] || secret="a secret (${BASH_REMATCH[2]}=…)"
		[[ ! $secret ]] || {
			echo "$name in your environment: its URL holds $secret, which Slurm would keep; set it in slurm/photoz.env" >&2
			exit 2
		}
		given+=("$name=${!name}")
		;;
	esac
done
load_settings "${given[@]}"
if [[ $kept_back && $PHOTOZ_STORE == s3://* ]]; then
	echo "not passed on to the jobs, as Slurm would keep them:$kept_back; jobs read keys from a file," \
		"AWS_SHARED_CREDENTIALS_FILE in slurm/photoz.env" >&2
fi

# Set `options` to those of sbatch for a job; they win over the script's #SBATCH lines.
choose_options() {
	local partition=$SITE_PARTITION type=${GPU_TYPE:+$GPU_TYPE:}
	case $1 in train | infer) partition=${SITE_GPU_PARTITION:-$SITE_PARTITION} ;; esac
	options=()
	[[ -z $SITE_ACCOUNT ]] || options+=("--account=$SITE_ACCOUNT")
	[[ -z $partition ]] || options+=("--partition=$partition")
	case $1 in
	shard) options+=("--array=0-$((SITE_SHARD_TASKS - 1))") ;;
	infer) options+=("--array=0-$((SITE_INFER_TASKS - 1))") ;;
	train) options+=("--nodes=$SITE_NODES") ;;
	esac
	case $1:$GPU_COUNT in
	train:0 | infer:0) options+=(--gpus-per-node=0) ;;
	train:*)
		options+=("--gpus-per-node=$type$GPU_COUNT" "--cpus-per-task=$((GPU_COUNT * SITE_CORES_PER_GPU))"
			"--mem=$((GPU_COUNT * SITE_MEMORY_PER_GPU))G")
		;;
	infer:*) options+=("--gpus-per-node=${type}1") ;;
	esac
	options+=("${SITE_SBATCH[@]}")
	case $1 in train | infer) options+=("${SITE_GPU_SBATCH[@]}") ;; esac
}

# A command as it can be pasted into a shell.
show() {
	local word words=()
	for word in "$@"; do
		[[ $word =~ ^[A-Za-z0-9_.,:=/@%+\<\>-]+$ ]] || printf -v word %q "$word"
		words+=("$word")
	done
	echo "${words[*]}"
}

submitted=()
# Half a chain is of no use.
give_up() {
	((${#submitted[@]} == 0)) || scancel "${submitted[@]}"
	echo "slurm/submit.sh: Slurm refused $job, so nothing is submitted; it was asked with: ${options[*]}" >&2
}
trap give_up ERR

before=
for job in "${JOBS[@]}"; do
	choose_options "$job"
	# If a job fails for good, those after it are cancelled instead of waiting for ever.
	[[ -z $before ]] || options+=("--dependency=afterok:$before" --kill-on-invalid-dep=yes)
	if [[ ${1:-} == --dry-run ]]; then
		show sbatch "${options[@]}" "slurm/$job.sh" "${given[@]}"
		before="<$job>"
	else
		mkdir -p logs
		before=$(sbatch --parsable "${options[@]}" "slurm/$job.sh" "${given[@]}")
		before=${before%%;*}
		submitted+=("$before")
		echo "$job $before"
	fi
done
