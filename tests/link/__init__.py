"""Tests of the second path: frames, sessions, endpoints."""
