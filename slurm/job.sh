# Sourced by the job scripts: settings, container, stop signals and restarts.
# shellcheck shell=bash
set -euo pipefail

# A preempted job gets SIGUSR1, as does one near its time limit; a cancelled one SIGTERM. photoz-job saves its state
# at either and leaves with 85. The shell has to outlive it, to say what comes next.
child='' interrupted=''
stop() {
	interrupted=1
	[[ -z $child ]] || kill -USR1 "$child" 2>/dev/null || true
}
trap stop USR1 TERM

source slurm/settings.sh
# Words such as PHOTOZ_NAME=deep before the flags win over photoz.env; submit.sh gives those of its environment.
given=()
while [[ ${1:-} =~ ^(PHOTOZ|SITE|AWS)_[A-Z0-9_]+= ]]; do
	given+=("$1")
	shift
done
load_settings "${given[@]}"
unset SLURM_EXPORT_ENV     # --export=NONE keeps your shell out of the job, but its own steps need its settings
export PYTHONNOUSERSITE=1  # a container must not pick up packages from ~/.local

# The job's own disk where it has one; a home directory is no place for 50 GB.
export PHOTOZ_CACHE=${PHOTOZ_CACHE:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/photoz-cache-$UID}

# GPUs that Slurm has given to this job, on each of its hosts. If they can't be used, the job fails with one line rather
# than train on the CPU.
IFS=, read -ra gpu_list <<<"${SLURM_JOB_GPUS:-}"
gpus=${SLURM_GPUS_ON_NODE:-${#gpu_list[@]}}
export PHOTOZ_DEVICE=${PHOTOZ_DEVICE:-$( ((gpus)) && echo cuda || echo auto)}

# Of these paths, those that a container can be shown: a store on S3, and a setting that is not set, are none.
absolute() {
	local path
	for path in "$@"; do
		[[ $path != /* ]] || printf '%s\n' "$path"
	done
}

# Containers refuse to show a folder that is not there; on a host's own disk, that is each host's to make.
make_folders() {
	local folders
	mapfile -t folders < <(absolute "$PHOTOZ_STORE" "${PHOTOZ_CACHE:-}")
	# What can't be made is named by the container's own error.
	[[ $SITE_RUNTIME == none || ${#folders[@]} == 0 ]] || srun --cpus-per-task=1 mkdir -p -- "${folders[@]}" || :
}

# Set `step`, options for srun, and `inside`, the words before a command that put it into the container.
choose_runtime() {
	local path paths added names
	step=() inside=()
	IFS=', ' read -ra added <<<"$SITE_BIND"
	# A store in a folder, keys, cache, and what the site adds.
	mapfile -t paths < <(absolute "$PHOTOZ_STORE" "${AWS_SHARED_CREDENTIALS_FILE:-}" "${AWS_CONFIG_FILE:-}" \
		"${PHOTOZ_CACHE:-}" "${added[@]}")
	case $SITE_RUNTIME in
	none)
		PATH=$SITE_VENV/bin:$PATH
		command -v photoz-job >/dev/null || refuse SITE_VENV 'a virtual environment with photoz-job, as make setup makes it'
		;;
	apptainer)
		inside=(apptainer exec "${paths[@]/#/--bind=}")
		((gpus == 0)) || inside+=(--nv)
		inside+=("$SITE_IMAGE")
		;;
	podman)
		export PHOTOZ_IMAGE=$SITE_IMAGE # kept in the manifests
		inside=(podman run --rm --network=host --ipc=host --userns=keep-id --read-only --tmpfs=/tmp
			"--env=PHOTOZ_*" "--env=AWS_*" "--env=SLURM_*" "--env=GLOO_*" "--env=NCCL_*")
		((gpus == 0)) || inside+=(--device=nvidia.com/gpu=all)
		for path in "${paths[@]}"; do inside+=("--volume=$path:$path"); done
		inside+=("$SITE_IMAGE")
		;;
	pyxis)
		export PHOTOZ_IMAGE=$SITE_IMAGE
		mapfile -t names < <(compgen -e PHOTOZ_)
		# Without their names the image's own values would win.
		step=("--container-image=$SITE_IMAGE" --no-container-mount-home "--container-env=$(IFS=, && echo "${names[*]}")")
		for path in "${paths[@]}"; do step+=("--container-mounts=$path:$path"); done
		;;
	esac
}

# Run a command on each host of the job, pass stop signals on to it, and end or restart the job by its exit code.
run_job() {
	local code
	choose_runtime
	make_folders
	# srun takes no --cpus-per-task over from sbatch. When a host is done or has failed, the others get a minute to
	# find their own exit code; ended at once they could not say that the input was bad.
	srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=60 "${step[@]}" "${inside[@]}" "$@" &
	child=$!
	[[ -z $interrupted ]] || stop
	while :; do
		interrupted='' code=0
		wait "$child" || code=$?
		[[ $interrupted ]] || break # a signal ends `wait`, not the command
	done
	finish "$code"
}

# Leave with a command's exit code, or put the job back into the queue: the same command goes on where this one was.
finish() {
	local code=$1 allowed=0 done_so_far=${SLURM_RESTART_COUNT:-0} me=$SLURM_JOB_ID
	[[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID # its job id may be the array's
	case $code in
	75 | 85) allowed=$SITE_RESTARTS ;; # transient; stopped, with its state saved
	137 | 143) allowed=2 ;;            # killed, or its host is lost: once more may do, twenty times won't
	esac
	# Slurm is ending the job already (scancel): leave it at that.
	[[ $(squeue --noheader --jobs="$me" --format=%T) == RUNNING ]] || exit "$code"
	if ((allowed > done_so_far)); then
		echo "slurm: exit code $code; restart $((done_so_far + 1)) of $allowed"
		scontrol requeue "$me"
	elif ((allowed)); then
		echo "slurm: exit code $code after $done_so_far restarts; given up: submit again to go on" >&2
	fi
	exit "$code"
}
