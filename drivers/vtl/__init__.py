"""The virtual library as SCSI devices: device servers for drives and changer, and an iSCSI target that serves them."""
