"""What the admin types: one file per noun, thin."""
