"""The way out to the trainer. Imports neither pydicom nor pynetdicom nor the vault: it moves bytes it can check."""
