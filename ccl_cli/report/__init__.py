"""Reports from run folders: runs -> one frame -> means over seeds -> tables, figures and one page.

Tables, comparisons, training curves and accuracies by class are made of records alone and import no torch.
The other parts of the page show a run's videos through its student, and through its teachers.
"""
