"""The providers' manners on loopback, with faults and a ledger of everything that would have been charged.

Start it with `from runner.sandbox.server import Faults, Options, Sandbox`, or with `python -m runner.sandbox`. Nothing
here imports the rest of `runner`, so that the judge cannot share the mistakes of the judged.
"""
