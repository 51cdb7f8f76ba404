"""Reading of one video: location, metadata, frames and sound."""
