"""Isthmus: one ModelDeployment served on Kubernetes and on SLURM."""

__version__ = "0.1.0"
