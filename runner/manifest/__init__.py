"""Read, check and expand manifests.

Manifests are read with the line and column of every value, checked completely and expanded lazily. Pure: no network, no
store.
"""
