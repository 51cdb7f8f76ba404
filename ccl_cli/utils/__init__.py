"""What every room needs and nothing of deep learning: files, the terminal, signals, several processes."""
