"""The level-based loop, which knows no kind: queue, workers, triggers."""
