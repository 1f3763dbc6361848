"""Rig file, runner, workload, history, judge and reports."""
