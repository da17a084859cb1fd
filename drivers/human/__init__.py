"""A human as a changer: prompts, and eyes on the drives."""
