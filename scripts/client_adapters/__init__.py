"""Projects that call the two operators, run on ranks of the virtual NPU. An adapter per project, one way to judge."""
