"""The documentation: its links lead somewhere and its code runs."""
