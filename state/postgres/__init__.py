"""The state in PostgreSQL, which many workers share."""
