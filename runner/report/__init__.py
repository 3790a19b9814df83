"""What people see: progress, summary, results."""
