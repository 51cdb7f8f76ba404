"""Sentence encoders as frozen teachers for ccl: class names, or captions of videos."""
