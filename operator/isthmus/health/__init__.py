"""Probes of off-cluster workers: health, model and attempt."""
