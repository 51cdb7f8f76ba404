"""The command line. One file per command or group; slow imports happen when the command runs."""
