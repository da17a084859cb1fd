"""The catalog: what lies on which tape (the ledger) and what every backup set looks like (the index).

Plain blocking Python without trio; safe to use from any one thread at a time, see the modules.
"""
