"""What those who follow along are told while it happens: the streams of events."""
