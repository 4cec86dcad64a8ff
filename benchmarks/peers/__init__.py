"""Poller beside other tools that notice changes: the same list, the same faults, the same looks."""
