"""Datasets compiled from the log: what was said, as rows to train on, in versions that stay.

query      what is wanted
cleaning   what counts, and what it weighs: one pass over the signals, in order
rows       from signals to rows, by format
split      which rows train, and which are held out
compiling  all of it, from the log to a version
manifest   what a version is made of; its hash is its name
versions   versions on a place: write, list, read, verify, compare
card       a version in words, for people
"""
