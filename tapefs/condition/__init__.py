"""How tapes and drives are, from what is known of their lives: pure functions of records and a time."""
