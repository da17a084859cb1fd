"""Tape drives and changers over iSCSI, by libiscsi in user space: no kernel module, no root. Blocking."""
