"""Recipes: their models, their files, and the syntax of teacher, student and data set names."""
