"""The link over a serial line: a pure reliable line (frames, window, greeting) and the tty that it runs on."""
