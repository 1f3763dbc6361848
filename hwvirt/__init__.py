"""hwvirt: a hardware-in-the-loop harness for redirect-on-write between two storage controllers."""

__all__ = ["__version__"]

__version__ = "0.1.0"
