"""Rules that several kinds share. Pure."""
