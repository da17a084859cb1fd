"""The catalog as one file: a copy made while everything runs, and bringing it back."""
