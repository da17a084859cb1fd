"""tapefs: a tape archive that you mount."""

__version__ = "0.1.0"
