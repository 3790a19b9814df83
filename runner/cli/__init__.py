"""Verbs and options, nothing else."""
