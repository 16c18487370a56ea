"""What people see: tables, live progress, messages and exit codes. Nothing here trains."""
