"""The truth of the log: a model of an API, the real engine upon it, and a judge who knows what really happened."""
