"""Worlds in which one thing happens and nothing else: what a drawn one cannot say in general."""
