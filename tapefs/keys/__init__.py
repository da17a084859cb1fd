"""Encryption: keys, where they are kept, and the age format in which payloads, trailers and indexes go to tape.

A **recipient** (public) is all that writing needs; an **identity** (secret) is needed to read. The format is that of
the program `age` (C2SP, age-encryption.org/v1), so that it and `dd` read a tape without us. See docs/encryption.md.
"""
