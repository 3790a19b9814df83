"""How each API speaks: specs as data, and their interpreter: tasks to requests, replies to events. Pure."""
