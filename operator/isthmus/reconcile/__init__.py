"""The level-based loop: store, work queue, leader election and one reconciler per kind."""
