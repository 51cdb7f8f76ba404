"""Use of published models: prediction, features, export and the Hugging Face Hub."""
