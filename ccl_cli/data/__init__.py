"""Videos on disk to tensors: manifest, decoding, windows, views, sampling."""
