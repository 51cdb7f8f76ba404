"""Commands that apply a model to unlabelled video files."""
