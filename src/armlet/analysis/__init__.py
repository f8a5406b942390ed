"""What redistribution changed: `shape` measures it, `figures` draws it, `synthetic` has samples that need no model."""
