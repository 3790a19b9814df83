"""Campaigns: long runs of the real command with random kills, checked from outside (docs/reliability.md)."""
