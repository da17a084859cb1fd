"""Getting the catalog back from the tapes alone, and taking in tapes of another installation."""
