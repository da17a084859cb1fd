"""Further copies that are written while the backup runs, by movers of other drives."""
