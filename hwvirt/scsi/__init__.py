"""What T10 says: layouts, CDBs, sense, VPD and mode pages, the device server. No I/O, no clock."""
