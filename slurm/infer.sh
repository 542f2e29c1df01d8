#!/bin/bash
# The redshift PDF of every galaxy in the shards: each array task predicts its slice.
# Submit from the folder that holds slurm/, or let slurm/submit.sh do it: sbatch slurm/infer.sh [flags of photoz-job infer]
#SBATCH --job-name=photoz-infer   # as squeue shows it
#SBATCH --output=logs/%x-%A_%a.log # folder logs, which must be there; name and id of the job, number of the task
#SBATCH --array=0-3               # slices of the shards
#SBATCH --nodes=1                 # a task is one process
#SBATCH --gpus-per-node=1         # 0 infers on CPUs
#SBATCH --ntasks-per-node=1       # started by srun
#SBATCH --cpus-per-task=4         # decoding images beside the GPU
#SBATCH --mem=8G                  # a slice at a time
#SBATCH --time=04:00:00           # longer work starts itself again
#SBATCH --export=NONE             # settings come from slurm/photoz.env; no variable of your shell is stored in Slurm
#SBATCH --requeue                 # may be put back into the queue, by Slurm or by itself
#SBATCH --open-mode=append        # a restart adds to the log
#SBATCH --signal=B:USR1@60        # a minute before the time limit: save the state and start again
source slurm/job.sh
run_job photoz-job infer "${INFER_FLAGS[@]}" "$@"
