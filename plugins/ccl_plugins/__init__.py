"""The teachers that come with ccl, registered through the same entry points as anybody else's."""
