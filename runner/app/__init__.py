"""Procedures behind the command line's verbs, in the only package that knows all the others."""
