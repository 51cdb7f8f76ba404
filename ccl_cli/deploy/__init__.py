"""A published model in use: predictions, features, other formats, the Hub."""
