"""What people and programs are told: events, and the channels by which they go out."""
