"""A library of videos that one can search by example."""
