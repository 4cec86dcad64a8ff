"""Long proofs of the promises, each with a target of `make` and bounded in time."""
