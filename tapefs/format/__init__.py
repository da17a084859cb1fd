"""The on-tape format 1: every byte that goes to tape is made and understood here. See docs/format.md."""
