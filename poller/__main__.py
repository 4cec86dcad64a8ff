"""`python -m poller`: the command line."""

from poller.cli import main

if __name__ == "__main__":
    main()
