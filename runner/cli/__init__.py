"""Verbs and options of the command line."""
