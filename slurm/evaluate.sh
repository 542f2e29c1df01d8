#!/bin/bash
# Score the predictions and write the report.
# Submit from the folder that holds slurm/, or let slurm/submit.sh do it: sbatch slurm/evaluate.sh [flags of photoz-job evaluate]
#SBATCH --job-name=photoz-evaluate # as squeue shows it
#SBATCH --output=logs/%x-%j.log   # folder logs, which must be there; name and id of the job
#SBATCH --nodes=1                 # one process
#SBATCH --ntasks-per-node=1       # started by srun
#SBATCH --cpus-per-task=4         # the baselines are trained on as many cores
#SBATCH --mem=8G                  # galaxies and their PDFs
#SBATCH --time=02:00:00           # longer work starts itself again
#SBATCH --export=NONE             # settings come from slurm/photoz.env; no variable of your shell is stored in Slurm
#SBATCH --requeue                 # may be put back into the queue, by Slurm or by itself
#SBATCH --open-mode=append        # a restart adds to the log
#SBATCH --signal=B:USR1@60        # a minute before the time limit: save the state and start again
source slurm/job.sh
run_job photoz-job evaluate "${EVALUATE_FLAGS[@]}" "$@"
