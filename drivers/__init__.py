"""Drives and changers: the interfaces, their errors, and one module or package per driver.

Plain blocking Python without trio. A drive belongs to one thread of one process (its mover).
"""
