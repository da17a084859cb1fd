"""Jobs: what makes one acceptable, the queue, what runs next, what becomes of runs, streams, hooks."""
