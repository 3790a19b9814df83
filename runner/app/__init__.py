"""The procedures behind the command line's verbs; the only package that knows all the others."""
