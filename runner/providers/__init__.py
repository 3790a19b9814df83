"""Describe each API as data (specs), build its requests and turn its responses into events. Pure, no I/O."""
