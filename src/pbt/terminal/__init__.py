"""Terminal output: tables, live progress, messages and exit codes."""
