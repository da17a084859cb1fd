"""The mover: one process per drive that runs backups and recall reads in blocking code."""
