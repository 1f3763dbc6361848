"""Systematic exploration: every schedule of a small story over the real controllers, in memory and in virtual time.

Each controller is a process that acts only when something reaches it, so what it does next depends on its state and on that
input alone. `machine` runs each process once for every state and input; `world` puts two of them, a cable and a host
together; `search` walks through everything that can happen there; `trial` says what must never be.
"""
