"""Tables of results and comparisons, one file per output format."""
