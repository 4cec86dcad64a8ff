"""The pages of the dashboard in a real browser: `python -m tests.proofs.pages`."""
