"""The log on file: what has left the store, as Parquet, and how both are read as one.

place       a folder on any filesystem that pyarrow knows
form        the columns of the files
segments    which files there are, sealed, in the store
archiver    the single writer: streams -> segments, exactly once
log         archive and store as one record
"""
