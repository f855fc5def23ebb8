"""Work on datasets that Ray does: many parts at once, here or in a cluster.

runner      rows of a dataset, by Ray Data
retraining  configurations side by side, and whole training jobs
due         begins those when they are due
"""
