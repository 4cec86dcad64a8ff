"""`python -m poller.cli` is `poller`."""

from poller.cli import main

main()
