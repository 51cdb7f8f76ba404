"""Reports from run folders: tables, comparisons, pictures and one page.

Tables, comparisons, training curves and accuracies by class are made of records alone and import no torch.
The other parts of the page look at a run's videos: through its student, and through its teachers.
"""
