"""The real Linux tape drivers, in User-Mode Linux."""
