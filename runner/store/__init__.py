"""Tasks on disk: the only package with SQL."""
