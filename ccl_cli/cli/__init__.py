"""The command line. A file holds one command or group and imports whatever is slow when it runs."""
