"""Correlation map, journal, redirecting volume, store, LUN routing and the daemon."""
