"""The Linux device agent: receives a document, applies it, says so."""
