"""SCSI: commands, their answers, tape drives and changers over any way to a device. Knows no ioctl and no network."""
