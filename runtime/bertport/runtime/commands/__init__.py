"""The runtime's own subcommands: one click command calls one function."""
