"""The kind SlurmCluster: polled, reported, and kept while jobs depend on it."""
