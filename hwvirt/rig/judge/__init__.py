"""The judge: decides from history, disks, map and ledger. A witness, no relative: imports ground, scsi and disk only."""
