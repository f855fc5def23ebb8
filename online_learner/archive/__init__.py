"""The log on file: what has left the store, as Parquet, and how both are read as one.

place       a folder on any filesystem that pyarrow knows
form        the columns of the files
files       one file: written whole, checked before it is read
segments    which files there are, sealed, in the store
archiver    the single writer: streams -> files, exactly once
sweep       what writers left behind that died
parts       stretches of the record, for other processes
log         archive and store as one record
"""
