"""What executes CDBs: loop device, file or SG_IO; discovery; the guard."""
