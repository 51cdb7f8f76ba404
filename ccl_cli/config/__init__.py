"""Recipes: their fields, their files, and the grammar that names teachers, students and data sets."""
