"""Power loss: what is left of a state when the power goes at any moment of a recorded run."""
