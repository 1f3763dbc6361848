"""Parses arguments and calls; nothing else."""
