"""Campaigns: long runs of the real command under blows, judged from outside (docs/reliability.md)."""
