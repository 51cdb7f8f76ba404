"""Built-in teachers of ccl, registered through entry points like third-party plugins."""
