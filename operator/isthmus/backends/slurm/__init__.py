"""The SLURM backend: commands, snapshots, the batch script."""
