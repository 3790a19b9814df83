"""What may happen to a task: states, events, the table of transitions, and how long to wait. Pure."""
