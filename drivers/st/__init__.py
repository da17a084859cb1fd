"""Tape drives and changers of the Linux kernel: `st` for data, `sg` for SCSI commands."""
