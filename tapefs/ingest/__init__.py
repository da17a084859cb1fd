"""What the scripts `scripts/ingest_*.py` do: bringing data to tape from where it arrives, by cron or a schedule."""
