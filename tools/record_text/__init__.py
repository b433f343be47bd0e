"""What a WAL record says, in the words of pg_waldump: one module for each resource manager."""
