"""Datasets compiled from the log: what was said, as rows to train on, in versions that stay.

query      what is wanted; where: which rows, as a filter in words
gathering  how far the log is looked at, and in which parts
cleaning   what counts, and what it weighs: one pass over the signals, in order (by believing)
rows       from signals to rows, by format
split      which rows train, and which are held out
working    what workers do; running: who they are; summing: what came of it
compiling  all of it, from the log to a version
provenance by which configuration, code and libraries
manifest   what a version is made of; its hash is its name
columns    types of columns; sinks: files, written as rows come
versions   versions on a place: draft, publish, list, find, remove
reading    their rows, batch by batch; verifying: to the byte; comparing: row by row
lessons    from rows to what a learner is taught
card       a version in words, for people
"""
