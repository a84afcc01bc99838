"""The process and the machine: threads, allocator, precision, log filters, provenance."""
