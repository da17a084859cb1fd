"""The virtual library: cartridges, drives and a robot on disk."""
