"""HTML page of ``ccl report html``. A new section needs an entry in ``SECTIONS`` and a macro."""
