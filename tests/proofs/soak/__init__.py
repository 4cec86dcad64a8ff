"""Soaks: what a daemon takes of its machine over a real hour, and over a simulated year."""
