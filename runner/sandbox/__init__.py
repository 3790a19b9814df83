"""The providers' APIs on loopback, with injected faults and a ledger of every task that would have been charged.

Start it with `from runner.sandbox.server import Faults, Options, Sandbox`, or with `python -m runner.sandbox`. Nothing
here imports the rest of `runner`: an error in the client cannot hide behind the same error in its test server.
"""
