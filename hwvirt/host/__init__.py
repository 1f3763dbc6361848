"""The first path: how hosts reach logical units, and how a rig plays the host."""
