"""Rules of an attempt, one per file, named after it. Pure."""
