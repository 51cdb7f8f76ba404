"""A library of videos that can be searched by example."""
