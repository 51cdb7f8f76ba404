"""Reports from run folders. Each room imports only from the rooms above it in this list.

``records``: run folders, means over seeds, comparisons of methods.
``tables``: results and comparisons for the terminal, and as Markdown, LaTeX, CSV and JSON.
``figures``: one file per figure, drawn by matplotlib.
``page``: the HTML page, filled by Jinja2.
"""
