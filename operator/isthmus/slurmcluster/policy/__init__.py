"""Rules of a cluster, one per file, named after it. Pure."""
