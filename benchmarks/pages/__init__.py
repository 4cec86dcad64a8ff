"""The pages of the dashboard in a real browser: `python -m benchmarks.pages`."""
