"""The state in one SQLite file. Only this package knows SQLite."""
