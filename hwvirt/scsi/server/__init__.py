"""The device server: CDBs in, Volume calls out, status and sense back."""

from hwvirt.scsi.server.device import DeviceServer, run_now

__all__ = ["DeviceServer", "run_now"]
