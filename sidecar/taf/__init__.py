"""TAF's HTTP interface, in the spelling that it documents and the one that it ships."""
