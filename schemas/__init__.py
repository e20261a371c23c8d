"""What crosses a border: movements, outputs, rules, settings, and topic names with their codecs."""
