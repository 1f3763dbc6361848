"""What disks this machine has, what they are used for, and whether they are armed. Nothing here writes to a disk."""
