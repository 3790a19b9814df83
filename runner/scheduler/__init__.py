"""The work, in stages that meet in the store."""
