"""The program mtx as a changer."""
