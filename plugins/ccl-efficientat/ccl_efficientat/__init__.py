"""EfficientAT's audio networks as frozen teachers for ccl."""
