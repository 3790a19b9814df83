"""Progress, summary and results for users."""
