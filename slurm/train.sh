#!/bin/bash
# Train one network on all hosts and GPUs of the job: one torchrun a host, one rank a GPU.
# Submit from the folder that holds slurm/, or let slurm/submit.sh do it: sbatch slurm/train.sh [flags of photoz-job train]
#SBATCH --job-name=photoz-train   # as squeue shows it
#SBATCH --output=logs/%x-%j.log   # folder logs, which must be there; name and id of the job
#SBATCH --nodes=1                 # any number
#SBATCH --gpus-per-node=1         # any number; 0 trains on CPUs, with SITE_RANKS ranks a host
#SBATCH --ntasks-per-node=1       # a torchrun, which starts the ranks
#SBATCH --cpus-per-task=8         # a GPU's; for more GPUs, so many times more
#SBATCH --mem=32G                 # the images are kept in memory: 12 KB each for 64x64 px in three colours
#SBATCH --time=24:00:00           # longer work starts itself again
#SBATCH --export=NONE             # settings come from slurm/photoz.env; no variable of your shell is stored in Slurm
#SBATCH --requeue                 # may be put back into the queue, by Slurm or by itself
#SBATCH --open-mode=append        # a restart adds to the log
#SBATCH --signal=B:USR1@60        # a minute before the time limit: save the state and start again
source slurm/job.sh

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Each host fills in its own number; the port is unlikely to be that of another job on the same host.
# shellcheck disable=SC2016
run_job bash -c 'exec python -m jobs.torchrun --node-rank="$SLURM_NODEID" "$@"' torchrun \
	--nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$((gpus > 0 ? gpus : SITE_RANKS))" \
	--master-addr="${hosts%%$'\n'*}" --master-port="$((20000 + SLURM_JOB_ID % 10000))" \
	-m jobs train "${TRAIN_FLAGS[@]}" "$@"
