"""Schedules at work: what is due, its runs, and the commands and programs that belong to them."""
