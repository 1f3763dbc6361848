"""The guard: which disk a rig may write, and which never. See docs/disks.md for the ladder."""
