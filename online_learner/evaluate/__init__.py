"""How good weights are on rows that somebody else has judged: all of them, and by segment.

answering  what answers now, and which rows it has learned
measures   from answers and truths to numbers
report     a version on a dataset: the table, and against another version
"""
