"""Gates: limits that a compile is judged by, and the exit codes that follow."""
