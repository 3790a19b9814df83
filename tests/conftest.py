"""What every test starts from."""

import signal

# Whoever starts the suite in the background of a shell passes on an ignored Ctrl-C, to each process begun here as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
