"""Boots the virtual bench of user-mode Linux kernels."""
