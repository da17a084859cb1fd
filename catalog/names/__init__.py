"""The names of a set's own entries, in a file beside its index that can be searched quickly."""
