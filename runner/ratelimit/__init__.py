"""How fast to send: limits that all processes of an account share."""
