"""Backup sets as a whole: building their index, finishing them."""
