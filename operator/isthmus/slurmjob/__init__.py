"""The kind SlurmJob: one attempt and one SLURM job, brought together."""
