"""IBM's program itdt as the way to drives and changers that only it may touch."""
