"""The inside of the LMDB ledger, from the bottom up.

    translate     LMDB's errors into the catalog's
    environment   one LMDB environment per process and ledger: locks, growth, forks, reopening
    tables        the databases and their keys, field by field
    transaction   typed reading and writing within one LMDB transaction
    volumes, appending, jobs, sets, segments, events
                  the operations: plain functions of a transaction and their arguments, without effects elsewhere,
                  because a transaction that finds the map too small is run again
    layout        making a ledger and checking its version
    verify        reading everything and checking how it hangs together

Only `catalog.lmdb_ledger` is meant for users.
"""
