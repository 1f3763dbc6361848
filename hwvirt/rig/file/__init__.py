"""The rig file: YAML in, typed values out, every mistake told with its place."""

from hwvirt.rig.file.parse import load_rig, parse_rig

__all__ = ["load_rig", "parse_rig"]
