"""Rules of a deployment, one per file, named after it. Pure."""
