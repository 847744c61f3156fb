"""Probes of workers outside the cluster: health, model and attempt."""
