"""The archive's tree as callers over HTTP see it: names, attributes, bytes, and who may have them."""
