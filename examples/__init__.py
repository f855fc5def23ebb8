"""Learners to start from, and the demo."""
