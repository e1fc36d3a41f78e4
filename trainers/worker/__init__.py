"""The process in which trials train; one file knows Ray."""
