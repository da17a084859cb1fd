"""What looks after the catalog itself: checks of it, and copies."""
