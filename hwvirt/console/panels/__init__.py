"""The panes of the live view: each turns facts, the time and a width into lines, and keeps nothing."""
