"""NBD export and initiator. Ref: NetworkBlockDevice/nbd doc/proto.md."""
