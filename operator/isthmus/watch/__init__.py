"""The only place that imports kopf: events become store updates and queue keys."""
