"""Bulk generation against asynchronous image and video APIs: every task paid for once, every result kept."""

__version__ = "0.1.0"
