"""On which device and in which numbers a run computes, whatever it computes."""
