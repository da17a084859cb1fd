"""The settings of tapefs.toml, one module for each of its tables: typed, checked when they are read."""
