"""Continuous training: fresh learners on a dataset, and the best of them to the gatekeeper.

search     which configurations are tried
fitting    one configuration: learn what is to be learned, score what was held out
job        all of it, from the log to a candidate
records    what is kept of a job, and that there is one at a time
due        whether one is due, and why
"""
