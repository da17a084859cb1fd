"""Reading what TAF has written to LTFS volumes: finding its archives, checking them, bringing back what is in them."""
