"""The parts that every node program shares and that touch the machine: keys on disk, configuration, gRPC."""
