"""Poller against servers that others wrote, with the truth kept beside them: `python -m tests.proofs.servers`."""
