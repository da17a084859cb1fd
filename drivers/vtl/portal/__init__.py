"""An iSCSI target (RFC 7143) that serves logical units: one connection per session, error recovery level 0."""
