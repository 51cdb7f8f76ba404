"""Networks of the library transformers as frozen teachers for ccl."""
