"""The onhand command: it reads settings, builds flows and supervises their processes."""
