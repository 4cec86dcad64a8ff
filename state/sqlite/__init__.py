"""The state in one SQLite file: the only code of ours that knows SQLite."""
