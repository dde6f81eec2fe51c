"""Launches, watches and restarts the workers of one training run."""
