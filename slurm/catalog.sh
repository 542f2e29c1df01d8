#!/bin/bash
# A clean, split catalogue of galaxies.
# Submit from the folder that holds slurm/, or let slurm/submit.sh do it: sbatch slurm/catalog.sh [flags of photoz-job catalog]
#SBATCH --job-name=photoz-catalog # as squeue shows it
#SBATCH --output=logs/%x-%j.log   # folder logs, which must be there; name and id of the job
#SBATCH --nodes=1                 # one process
#SBATCH --ntasks-per-node=1       # started by srun
#SBATCH --cpus-per-task=2         # it waits for the survey's answers most of the time
#SBATCH --mem=4G                  # a catalogue of a million galaxies takes some 2 GB
#SBATCH --time=04:00:00           # longer work starts again by itself
#SBATCH --export=NONE             # settings come from slurm/photoz.env; no variable of your shell is stored in Slurm
#SBATCH --requeue                 # may be put back into the queue, by Slurm or by itself
#SBATCH --open-mode=append        # a restart adds to the log
#SBATCH --signal=B:USR1@60        # a minute before the time limit: save the state and start again
source slurm/job.sh
run_job photoz-job catalog "${CATALOG_FLAGS[@]}" "$@"
