"""What a failed run says: lines, facts, whose failure it is, causes. No torch, no I/O but the log."""
