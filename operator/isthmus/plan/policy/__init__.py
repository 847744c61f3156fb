"""One rule per file, named after it."""
