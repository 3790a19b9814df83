"""Define what can happen to a task: states, events, the table of transitions and the retry policy. Pure, no I/O."""
